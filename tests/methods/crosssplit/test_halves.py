"""Nobody sees the labels of the other half: the split itself, and every index that the real loaders serve."""

from collections import defaultdict

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from robustlab.core.errors import ConfigError
from robustlab.data.serving.loader import Loader
from robustlab.diagnostics.memorisation import Memorisation
from robustlab.engine.method import Position
from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit
from robustlab.methods.label_noise.crosssplit.crosssplit_settings import SplitSettings
from robustlab.methods.label_noise.crosssplit.halves import split_halves
from tests.methods.crosssplit.paper import at_paper_scale
from tests.methods.harness import make_context, make_data, run, without_labels_of


def built(data, *, epochs: int = 3, batch_size: int = 16, seed: int = 0, **options) -> CrossSplit:
    method = at_paper_scale(**options)
    method.build(make_context(data, epochs=epochs, batch_size=batch_size, seed=seed))
    return method


@given(
    count=st.integers(2, 300),
    seed=st.integers(0, 100),
    split_seed=st.none() | st.integers(0, 9),
    stratify=st.booleans(),
)
def test_halves_are_disjoint_and_complete(count, seed, split_seed, stratify):
    indices = torch.arange(0, 3 * count, 3)
    labels = torch.arange(count) % 7
    settings = SplitSettings(seed=split_seed, stratify=stratify)
    first, second = split_halves(indices, labels, seed=seed, settings=settings)
    assert (len(first), len(second)) == (count // 2, count - count // 2)
    assert torch.equal(torch.cat([first, second]).sort().values, indices)
    again = split_halves(indices, labels, seed=seed, settings=settings)
    assert torch.equal(first, again[0])
    if split_seed is not None:
        assert torch.equal(first, split_halves(indices, labels, seed=seed + 1, settings=settings)[0])
    if stratify:
        counts = [labels[half // 3].bincount(minlength=7) for half in (first, second)]
        assert int((counts[0] - counts[1]).abs().max()) <= 1


def test_the_split_depends_on_its_seed_and_not_on_the_noise():
    indices, labels = torch.arange(200), torch.arange(200) % 5
    one = split_halves(indices, labels, seed=0, settings=SplitSettings())
    assert torch.equal(one[0], split_halves(indices, labels.flip(0), seed=0, settings=SplitSettings())[0])
    assert not torch.equal(one[0], split_halves(indices, labels, seed=1, settings=SplitSettings())[0])


@pytest.fixture
def served(monkeypatch) -> dict[str, list[torch.Tensor]]:
    """Every index that any loader serves, by the loader's purpose; the labels served with them must be right."""
    record = defaultdict(list)
    original = Loader.epoch

    def epoch(self, *args, **options):
        for batch in original(self, *args, **options):
            record[self.order.purpose].append(batch.index.clone())
            record[f"{self.order.purpose} with labels"].append(torch.tensor([batch.targets is not None]))
            yield batch

    monkeypatch.setattr(Loader, "epoch", epoch)
    return record


def sets(record: dict[str, list[torch.Tensor]]) -> dict[str, set[int]]:
    return {name: set(torch.cat(parts).tolist()) for name, parts in record.items() if not name.endswith("with labels")}


@pytest.mark.parametrize("precompute", [False, True])
def test_each_network_is_served_labels_of_its_own_half_alone(served, precompute):
    data = make_data(train=203)
    method = built(data, perf={"precompute_targets": precompute}, unlabelled={"batch_ratio": 1.0})
    first, second = (set(half.tolist()) for half in method.halves)
    assert not first & second
    assert len(first | second) == 203
    run(method, diagnostics=[Memorisation()])  # one epoch of warm-up, two after it
    seen = sets(served)
    for number, own, other in ((1, first, second), (2, second, first)):
        assert seen[f"labelled{number}"] == seen[f"warmup{number}"] == seen[f"extrema{number}"] == own
        assert seen[f"unlabelled{number}"] == other
        assert not torch.cat(served[f"unlabelled{number} with labels"]).any()
    assert set(seen) == {f"{p}{k}" for p in ("labelled", "warmup", "extrema", "unlabelled") for k in (1, 2)} | {
        "evaluate train"  # the diagnostics
    }


def test_the_official_profile_serves_all_labels_to_both(served):
    data = make_data(train=100)
    scope = {"jsd": {"extrema_scope": "full"}, "warmup": {"epochs": 1, "data": "full"}}
    method = built(data, split={"disjoint": False}, **scope)
    run(method)
    seen = sets(served)
    for name in ("labelled1", "labelled2", "warmup1", "warmup2", "extrema1", "extrema2"):
        assert seen[name] == set(range(100))


@pytest.mark.parametrize("options", [{}, {"perf": {"precompute_targets": True}}, {"turn_order": "simultaneous"}])
def test_poisoned_labels_of_the_other_half_never_reach_network_1(options):
    data = make_data(train=120)
    method = built(data, **options)
    run(method, stop=method.steps_per_epoch(method.stages()[0], 0))  # an honest warm-up, so that network 2 is a peer
    without_labels_of(data, method.halves[1], 10**6)
    ssl = method.stages()[1]
    warmup = method.stages()[0]
    for stage in (warmup, ssl):
        for step, item in enumerate(method.batches(stage, 0, 0)):
            if item.turn == 2:
                break
            losses = method.train_step(item, Position(stage.name, 0, step, step))
            assert all(value.isfinite() for value in losses.values())
    with pytest.raises((IndexError, RuntimeError)):  # the poison works: turn 2 is where those labels are used
        method.train_step(item, Position("ssl", 0, step, step))


def test_steps_per_epoch_at_the_size_of_cifar():
    data = make_data(train=50_000, test=10, dim=1, views={"weak": [], "strong": []})
    method = built(data, batch_size=256)
    turn = method.turns[1]
    assert (len(turn.labelled), len(turn.warmup), len(turn.unlabelled or ())) == (98, 49, 196)
    assert [len(list(turn.labelled.epoch(0))[-1]), turn.steps] == [168, 98]
    full = built(data, batch_size=256, split={"disjoint": False}, warmup={"epochs": 1, "data": "full"})
    assert (len(full.turns[1].labelled), len(full.turns[1].warmup)) == (196, 98)
    assert len(list(full.turns[1].labelled.epoch(0))[-1]) == 80
    assert built(data, batch_size=256, steps_per_epoch=196).steps_per_epoch(method.stages()[1], 0) == 392


def test_halves_of_unequal_steps_take_turns_right():
    method = built(
        make_data(train=101), batch_size=10
    )  # 50 and 51 samples: 5 steps each, since a batch of 1 is dropped
    uneven = built(make_data(train=99), batch_size=7)  # 49 and 50 samples: 7 steps and 8, less the batch of 1
    for one in (method, uneven):
        for stage in one.stages():
            items = list(one.batches(stage, 0, 0))
            assert len(items) == one.steps_per_epoch(stage, 0)
            assert [item.turn for item in items] == sorted(item.turn for item in items)
            for start in range(len(items) + 1):
                rest = list(one.batches(stage, 0, start))
                assert [(i.turn, i.step) for i in rest] == [(i.turn, i.step) for i in items[start:]]
                assert all(
                    torch.equal(a.labelled.views[0], b.labelled.views[0])
                    for a, b in zip(rest, items[start:], strict=True)
                )


def test_unlabelled_batches_that_cannot_be_made():
    with pytest.raises(ConfigError, match=r"unlabelled\.batch_ratio"):
        built(make_data(train=40), batch_size=8, unlabelled={"batch_ratio": 0.2})
    with pytest.raises(ConfigError, match=r"warmup.epochs=3 uses up all of trainer.epochs=3"):
        built(make_data(train=40), warmup={"epochs": 3})
