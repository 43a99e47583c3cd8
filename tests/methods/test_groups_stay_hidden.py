"""No method that does not declare it learns from group labels: permuted among samples, they leave every bit as it was.

Each file of conf/method is trained twice; new ones are found by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.data.dataset import Batch
from robustlab.data.run_data import Data
from robustlab.data.told_groups import train_groups
from robustlab.engine.method import Context, Method, Position
from robustlab.methods.erm import ERM
from tests.methods.grouped import grouped_digits
from tests.methods.harness import flat, make_context, run, snapshot
from tests.methods.test_contract import FILES, build

FOLDER = Path(__file__).parents[2] / "conf" / "method"
VARIANTS = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix()
    for path in FOLDER.glob("*/[!_]*.yaml")
    if "???" not in path.read_text()  # needs what an earlier run left
)


@pytest.fixture(scope="module")
def both() -> tuple[Data, Data]:
    """Data that differ in nothing but which sample has which attribute."""
    given, permuted = (grouped_digits(subset=64, permuted=permuted) for permuted in (False, True))
    assert torch.equal(given.assigned, permuted.assigned)
    for split in ("train", "val", "test"):
        one, other = given.attributes(split), permuted.attributes(split)
        assert one is not None
        assert other is not None
        assert not torch.equal(one, other)
        assert torch.equal(one.sort().values, other.sort().values) or split == "train"  # of which a subset is kept
    return given, permuted


def differences(methods: Sequence[Method]) -> list[str]:
    """Train both and return the names of what is not the same to the bit: weights, states, predictions."""
    ends = []
    for method in methods:
        run(method)
        images = next(method.context.data.evaluation("test", 30).epoch(0)).images
        ends.append(flat({**snapshot(method), "predictions": method.predictions(images)}))
    first, second = ends
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.mark.parametrize("name", [*FILES, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)])
def test_a_method_trains_the_same_whatever_the_attributes_are(name, both):
    methods = [build(name, data) for data in both]
    if "groups" in methods[0].requires:
        pytest.skip("declares that it trains on groups")
    assert differences(methods) == []


class Weighted(ERM):
    """Weights the loss by attribute."""

    def attribute(self, data: Data) -> Tensor:
        raise NotImplementedError

    def build(self, context: Context) -> None:
        super().build(context)
        self.of_sample = self.attribute(context.data)

    def loss(self, batch: Batch, position: Position) -> Mapping[str, Tensor]:
        assert batch.targets is not None
        losses = F.cross_entropy(self.learners["network"](batch.images).float(), batch.targets, reduction="none")
        return {"loss": (losses * (1 + self.of_sample[batch.index])).mean()}


class Cheating(Weighted):
    """Takes what is meant for the engine's tables."""

    def attribute(self, data: Data) -> Tensor:
        spread = torch.zeros(data.num_train, dtype=torch.int64)
        attributes = data.attributes("train")
        assert attributes is not None
        return spread.index_copy(0, data.train_indices, attributes)


class Declared(Weighted):
    """Asks for groups and says so."""

    requires = frozenset({"groups"})

    def attribute(self, data: Data) -> Tensor:
        return train_groups(data, self) % 2


class Undeclared(Declared):
    """Asks for groups and does not say so."""

    requires = frozenset()


def built(cls: type[Method], both: tuple[Data, Data]) -> list[Method]:
    methods = [cls() for _ in both]
    for method, data in zip(methods, both, strict=True):
        method.build(make_context(data, epochs=1, batch_size=16))
    return methods


@pytest.mark.parametrize("cls", [Cheating, Declared])
def test_a_method_that_uses_attributes_is_found_out(cls, both):
    found = differences(built(cls, both))
    assert any(name.startswith("learners/network/network/") for name in found)
    assert "predictions/" in found


def test_a_method_that_asks_without_saying_so_is_refused(both):
    with pytest.raises(AssertionError, match="Undeclared asks for groups"):
        built(Undeclared, both)
