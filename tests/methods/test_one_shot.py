"""Baselines that prune once: when, how much, what, and the same again."""

from dataclasses import replace

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.data.sources.digits import Digits
from robustlab.engine.learner import Learner
from robustlab.methods.pruning.group_norm import GroupNorm
from robustlab.methods.pruning.one_shot import Magnitude, OneShot, RandomPruning
from robustlab.methods.pruning.saliency import Saliency
from robustlab.methods.pruning.slimming import NetworkSlimming
from robustlab.models.resnet import cifar_resnet
from robustlab.pruning.cost import forward_flops, parameters
from robustlab.pruning.scores import magnitude_scores
from tests.methods.harness import RUNTIME, Options, assert_equal, make_context, make_data, restore, run, snapshot

WIDTHS = (12, 20)
STEPS, EPOCHS = 5, 3  # 80 samples in batches of 16


def built(method: OneShot, *, seed: int = 0, **learner) -> OneShot:
    options = Options(widths=WIDTHS, learner=learner)
    method.build(make_context(make_data(train=80, test=20), epochs=EPOCHS, batch_size=16, seed=seed, options=options))
    return method


def events(method: OneShot) -> list[dict]:
    return [event for event in method.record.events if event["reason"] == "score"]


def live(method: OneShot) -> list[list[int]]:
    return [indices.tolist() for indices in method.surgeon.live.values()]


@pytest.mark.parametrize("method", [RandomPruning, Magnitude])
@pytest.mark.parametrize("scope", ["global", "per_layer"])
@pytest.mark.parametrize("target", [0.25, 0.5, 0.83])
def test_the_target_is_reached_to_the_unit(method, scope, target):
    made = built(method(target={"neurons": target}, scope=scope))
    ends = run(made)
    goal = round(target * 32)
    assert made.surgeon.removed == goal
    assert ends[-1]["pruning/neuron_sparsity"] == pytest.approx(goal / 32)
    widths = [len(indices) for indices in live(made)]
    assert made.learners["network"].network.feature_dim == widths[-1]
    if scope == "per_layer":
        assert widths == [pytest.approx(12 * (1 - target), abs=1), pytest.approx(20 * (1 - target), abs=1)]


@pytest.mark.parametrize(("prune_at", "update"), [(0.0, 0), (0.5, 8), (1.0, 15)])
def test_the_run_is_pruned_when_it_is_said_to(prune_at, update):
    method = built(Magnitude(prune_at=prune_at))
    seen = {}
    ends = run(method, before=lambda _, place: seen.update({place.global_step: method.surgeon.neuron_sparsity()}))
    assert [event["t"] for event in events(method)] == [update]
    assert seen == {step: 0.5 if step > update else 0.0 for step in range(15)}  # looked at before each step
    assert ends[-1]["pruning/neuron_sparsity"] == 0.5
    assert events(method)[0]["epoch"] == min(update // STEPS, EPOCHS - 1)


def test_magnitude_keeps_the_largest_units():
    method = built(Magnitude(prune_at=0.5, norm="l2", scope="global", normalizer="none"))
    run(method, stop=8)
    network = method.learners["network"].network
    scores = magnitude_scores(network, method.units, norm="l2")
    names = [(name, unit) for name, values in scores.items() for unit in range(len(values))]
    best = sorted(names, key=lambda place: -float(scores[place[0]][place[1]]))[:16]
    run(method, start=8)
    assert {(name, unit) for name, kept in method.surgeon.live.items() for unit in kept.tolist()} == set(best)


def test_by_default_magnitude_keeps_the_same_share_of_the_largest_units_of_every_layer():
    method = built(Magnitude(prune_at=0.5))
    run(method, stop=8)
    scores = magnitude_scores(method.learners["network"].network, method.units)
    run(method, start=8)
    best = [sorted(values.topk(len(values) // 2).indices.tolist()) for values in scores.values()]
    assert live(method) == best


def test_units_of_different_layers_are_compared_by_their_norm_over_that_of_their_layer():
    method = built(Magnitude(prune_at=0.5, scope="global", normalizer="mean"))
    run(method, stop=8)
    scores = magnitude_scores(method.learners["network"].network, method.units)
    border = torch.cat([values / values.mean() for values in scores.values()]).sort().values[16]
    run(method, start=8)
    assert live(method) == [
        (values / values.mean() >= border).nonzero().flatten().tolist() for values in scores.values()
    ]


BASELINES = {
    "random": lambda: RandomPruning(),
    "magnitude": lambda: Magnitude(prune_at=0.0),
    "magnitude_global": lambda: Magnitude(prune_at=0.0, scope="global"),
    "slimming": lambda: NetworkSlimming(prune_at=0.0),
    "group_norm": lambda: GroupNorm(prune_at=0.0),
    "snap": lambda: Saliency(criterion="snap", scoring={"batches": 1, "batch_size": 30, "refresh_norm": True}),
    "crop": lambda: Saliency(criterion="crop", scoring={"batches": 1, "batch_size": 30, "refresh_norm": True}),
}


@pytest.mark.parametrize("name", BASELINES)
def test_half_of_an_untrained_resnet18_leaves_no_layer_with_a_single_unit(name):
    made = on_resnet18(BASELINES[name]())
    made.prune_to_target(0)
    left = made.surgeon.live_counts()
    assert made.surgeon.neuron_sparsity() == pytest.approx(0.5, abs=1e-3)
    assert min(left.values()) > 1, left


def test_raw_norms_of_layers_of_different_fan_in_are_the_exception():
    made = on_resnet18(Magnitude(prune_at=0.0, scope="global", normalizer="none"))
    made.prune_to_target(0)
    assert list(made.surgeon.live_counts().values()).count(1) == 10


def on_resnet18(method: OneShot) -> OneShot:
    torch.manual_seed(0)
    network = cifar_resnet(num_classes=10, image_shape=(1, 8, 8))
    data = Data(Digits(), seed=0, subset=60, views={"weak": []})
    learner = Learner(network, runtime=RUNTIME, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05))
    context = make_context(data, epochs=1, batch_size=16)
    method.build(replace(context, new_learner=lambda *_, **__: learner))
    return method


@pytest.mark.parametrize("measure", ["flops", "parameters"])
@pytest.mark.parametrize("method", [RandomPruning, Magnitude])
@pytest.mark.parametrize("target", [0.3, 0.6, 0.9])
def test_a_target_of_flops_or_parameters_is_reached_to_the_nearest_unit(measure, method, target):
    made = built(method(target={measure: target}, prune_at=0.0))
    ends = run(made)
    start, event = made.record.events[:2]
    saved = 1 - event[measure] / start[measure]
    network = made.learners["network"].network
    exact = {"flops": forward_flops(network, (1, 1, 16)), "parameters": parameters(network)}
    assert event[measure] == exact[measure]
    dearest = {"flops": 2 * (16 + 20), "parameters": 16 + 20 + 3}[measure]  # a unit of the first layer, the wider one
    assert abs(saved - target) * start[measure] <= dearest / 2
    name = {"flops": "pruning/flops_ratio_physical", "parameters": "pruning/weight_sparsity"}[measure]
    assert ends[-1][name] == pytest.approx(1 - saved if measure == "flops" else saved)


def test_widths_that_are_rounded_up_count_as_they_are():
    surgery = {"enabled": False, "round_to": 4}
    made = built(RandomPruning(target={"flops": 0.5}, surgery=surgery))
    run(made, stop=1)
    assert all(len(indices) % 4 == 0 for indices in live(made))
    start, event = made.record.events[:2]
    assert abs(1 - event["flops"] / start["flops"] - 0.5) <= 4 * 2 * (16 + 20) / start["flops"]


def test_random_units_are_a_function_of_the_seed():
    one, again, other = (built(RandomPruning(), seed=seed) for seed in (0, 0, 1))
    for method in (one, again, other):
        run(method, stop=1)
    assert live(one) == live(again)
    assert live(one) != live(other)


@pytest.mark.parametrize("stop", [7, 8, 9])
def test_a_run_goes_on_from_right_before_and_right_after_the_pruning(stop):
    def method() -> OneShot:
        return built(Magnitude(prune_at=0.5), ema_decay=0.9)

    whole = method()
    run(whole)
    first, second = method(), method()
    run(first, stop=stop)
    restore(second, snapshot(first))
    run(second, start=stop)
    assert_equal(snapshot(second), snapshot(whole))
    assert len(events(second)) == 1


def test_with_accumulated_gradients_it_waits_for_the_update():
    method = built(Magnitude(prune_at=0.5), accumulate=2)
    run(method)
    assert method.total_updates == 9  # three a epoch, the last of which has one batch
    assert [event["t"] for event in events(method)] == [4]
    assert method.surgeon.neuron_sparsity() == 0.5


def test_excluded_sets_stay_whole_and_the_target_is_still_of_all_units():
    name = next(iter(built(Magnitude()).surgeon.original))
    method = built(Magnitude(surgery={"enabled": False, "exclude": [name]}))
    run(method)
    assert [len(indices) for indices in live(method)] == [12, 4]


def test_the_least_width_stays():
    method = built(RandomPruning(target={"neurons": 0.75}, surgery={"enabled": False, "min_width": 4}))
    run(method, stop=1)
    assert [len(indices) for indices in live(method)] == [4, 4]


def test_a_target_out_of_reach_is_refused_before_training():
    with pytest.raises(ConfigError, match="at most 24 can be removed"):
        built(RandomPruning(target={"neurons": 0.9}, surgery={"enabled": False, "min_width": 4}))


@pytest.mark.parametrize("measure", ["flops", "parameters"])
def test_a_cost_out_of_reach_is_refused_before_training(measure):
    with pytest.raises(ConfigError, match=rf"method\.target\.{measure}=0\.99.*lower it"):
        built(RandomPruning(target={measure: 0.99}, surgery={"enabled": False, "min_width": 4}))


def test_half_of_the_units_go_where_no_target_is_given():
    made = built(RandomPruning())
    assert (made.target.measure, made.target.share) == ("neurons", 0.5)


@pytest.mark.parametrize("values", [{"neurons": 0.5, "flops": 0.5}, {"flops": 0.5, "parameters": 0.0}])
def test_two_targets_at_once_are_refused(values):
    with pytest.raises(ConfigError, match="exactly one of neurons, flops, parameters"):
        RandomPruning(target=values)


def test_dead_units_go_as_well_where_that_is_wanted():
    def trained(enabled: bool) -> OneShot:
        method = built(RandomPruning(target={"neurons": 0.25}, surgery={"enabled": enabled, "every": 1}))
        run(method, stop=1)
        norm = next(one for one in method.learners["network"].network.modules() if hasattr(one, "running_mean"))
        with torch.no_grad():
            norm.weight[0], norm.bias[0] = 0.0, -10.0
        run(method, start=1)
        return method

    counted, removed = trained(False), trained(True)
    assert counted.surgeon.removed == 8
    assert removed.surgeon.removed >= 9
    assert counted._counted["pruning/dead_share"] >= 1 / 32


@pytest.mark.parametrize(
    "options",
    [{"target": {"neurons": 1.5}}, {"prune_at": -0.1}, {"scope": "layer"}, {"norm": "l3"}, {"normalizer": "median"}],
)
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Magnitude(**options)


def test_a_network_without_units_is_refused():
    context = make_context(make_data(train=80, test=20), epochs=1, batch_size=16)
    make = context.new_learner
    hidden = replace(context, new_learner=lambda name, **steps: make(name, **steps, wrap=torch.nn.Sequential))
    with pytest.raises(ConfigError, match="declares no units"):
        RandomPruning().build(hidden)
