"""SNAP-S, CroP-S and their early forms: what goes, in which rounds, and when."""

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.methods.pruning.saliency import EarlySaliency, Saliency, has_settled
from robustlab.pruning.scores import crop_scores, snap_scores
from robustlab.pruning.unit_selection import removed_at
from tests.methods.harness import Options, assert_equal, make_context, make_data, restore, run, snapshot

SCORING = {"batches": 3, "batch_size": 40}


def built(method: Saliency, *, epochs: int = 3, lr: float = 0.05, seed: int = 0) -> Saliency:
    options = Options(widths=(12, 20), lr=lr)
    data = make_data(train=80, test=20)
    method.build(make_context(data, epochs=epochs, batch_size=16, seed=seed, options=options))
    return method


def sparsities(method: Saliency) -> list[float]:
    events = [event for event in method.record.events if event["reason"] == "score"]
    return [1 - sum(event["live"].values()) / 32 for event in events]


def live(method: Saliency) -> dict[str, list[int]]:
    return {name: indices.tolist() for name, indices in method.surgeon.live.items()}


@pytest.mark.parametrize(("criterion", "score"), [("snap", snap_scores), ("crop", crop_scores)])
def test_the_lowest_scores_of_the_initial_network_go(criterion, score):
    made = built(Saliency(criterion=criterion, scoring=SCORING))
    context = made.context
    loader = context.data.loader(batch_size=40, views=("test",), purpose="pruning scores", shard=False)
    scores = score(made.learners["network"].network, made.units, loader.epoch(0, steps=3))
    pooled = torch.cat(list(scores.values()))
    border = pooled.sort().values[16]
    expected = {name: (values >= border).nonzero().flatten().tolist() for name, values in scores.items()}
    run(made, stop=1)
    assert live(made) == expected


def test_rounds_follow_the_cumulative_targets():
    method = built(Saliency(criterion="crop", target={"neurons": 0.9}, rounds={"steps": 5}, scoring=SCORING))
    run(method, stop=1)
    wanted = [removed_at(share, 32) / 32 for share in (0.5, 0.7, 0.8, 0.85, 0.875, 0.8875, 0.9)]
    distinct = sorted(set(wanted))  # rounds that remove no whole unit leave no event
    assert sparsities(method) == pytest.approx(distinct)
    assert all(event["t"] == 0 for event in method.record.events)


def test_rounds_score_what_is_left():
    options = {"criterion": "crop", "target": {"neurons": 0.8}, "scoring": SCORING}
    once, often = built(Saliency(**options)), built(Saliency(**options, rounds={"steps": 5}))
    run(once, stop=1)
    run(often, stop=1)
    assert once.surgeon.removed == often.surgeon.removed == 26
    assert live(once) != live(often)


def test_statistics_can_be_refreshed_for_the_scores_alone():
    plain, refreshed = (
        built(Saliency(scoring={**SCORING, "refresh_norm": refresh}, prune_at=1.0)) for refresh in (False, True)
    )
    plain.prune_to_target(0)
    before = {name: value.clone() for name, value in refreshed.learners["network"].network.named_buffers()}
    refreshed.prune_to_target(0)
    assert live(plain) != live(refreshed)
    after = dict(refreshed.learners["network"].network.named_buffers())
    for name, kept in zip(("1", "4"), refreshed.surgeon.live.values(), strict=True):
        for statistic in ("running_mean", "running_var"):
            path = next(path for path in after if path.endswith(f".{int(name) + 1}.{statistic}"))
            assert torch.equal(after[path], before[path][kept])


def test_scores_are_a_function_of_the_seed():
    one, again = (built(Saliency(scoring=SCORING), seed=3) for _ in range(2))
    run(one)
    run(again)
    assert_equal(snapshot(one), snapshot(again))


def test_the_condition_of_the_early_methods():
    target = 0.9
    changes = [0.0, 0.1001, 0.1, 0.0999]
    assert [has_settled(change, target=target) for change in changes] == [False, False, False, True]


@pytest.mark.parametrize(
    ("distances", "pruned_after"),
    [
        ([0.8, 1.4, 1.4, 1.8, 1.9], 3),  # changes 0.8, 0.6, 0, 0.4 for a threshold of 0.5
        ([0.3, 0.4], 0),  # the first epoch counts from distance 0
        ([2.0, 1.7], None),  # the last epoch is too late
        ([2.0, 1.7, 1.6], 1),  # nearer to the start counts as well
    ],
)
def test_the_early_methods_prune_when_the_distance_changes_little(distances, pruned_after, capsys):
    method = built(EarlySaliency(scoring=SCORING), epochs=len(distances))
    start = [weight.clone() for weight in method.initial]
    stage = method.stages()[0]
    found = []
    for epoch, distance in enumerate(distances):
        if not method.pruned:
            with torch.no_grad():  # theta = theta_0 * (1 + d) is d * ||theta_0|| away
                for weight, first in zip(method.learners["network"].network.parameters(), start, strict=True):
                    weight.copy_((first.double() * (1 + distance)).float())
        found.append(method.end_epoch(stage, epoch))
        assert method.pruned == (pruned_after is not None and epoch >= pruned_after)
        assert found[-1]["pruning/neuron_sparsity"] == (0.5 if method.pruned else 0.0)
    until = len(distances) if pruned_after is None else pruned_after + 1
    changes = [abs(now - then) for then, now in zip([0.0, *distances], distances, strict=False)]
    reported = [values.get("pruning/weight_change") for values in found]
    assert reported == [pytest.approx(change, abs=1e-5) for change in changes[:until]] + [None] * (
        len(distances) - until
    )
    assert ("nothing was pruned" in capsys.readouterr().err) == (pruned_after is None)


def test_a_deadline_prunes_even_if_nothing_has_settled():
    method = built(EarlySaliency(target={"neurons": 0.8}, latest=0.5, scoring=SCORING), epochs=4, lr=3.0)
    run(method)
    assert {event["t"] for event in method.record.events if event["reason"] == "score"} == {10}
    assert method.surgeon.removed == 26


@pytest.mark.parametrize("stop", [4, 5, 6, 9, 11])
def test_an_early_run_goes_on_from_anywhere(stop):
    def method() -> Saliency:
        return built(EarlySaliency(criterion="crop", target={"neurons": 0.4}, scoring=SCORING), lr=0.3)

    whole = method()
    run(whole)
    first, second = method(), method()
    run(first, stop=stop)
    restore(second, snapshot(first))
    run(second, start=stop)
    assert_equal(snapshot(second), snapshot(whole))
    assert whole.pruned
    assert whole.record.events[-1]["t"] in (5, 10)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"criterion": "grasp"}, "criterion"),
        ({"scoring": {"batches": 0}}, "scoring.batches"),
        ({"rounds": {"steps": 0}}, "rounds.steps"),
    ],
)
def test_values_out_of_range(options, key):
    with pytest.raises(ConfigError, match=key):
        Saliency(**options)
    with pytest.raises(ConfigError, match="latest"):
        EarlySaliency(latest=2.0)
