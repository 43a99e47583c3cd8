"""A data set whose images say what is predicted of them, and a method that reads it off."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robustlab.core.runtime import Runtime
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.engine.method import Context, Method

Row = tuple[int, int, int]
"""Label, attribute, prediction."""

TRAIN: list[Row] = [(0, 0, 0)] * 6 + [(0, 1, 0)] * 1 + [(1, 0, 1)] * 1 + [(1, 1, 1)] * 2
VAL: list[Row] = [(0, 0, 0), (0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1)]
TEST: list[Row] = [
    *[(0, 0, 0)] * 9, (0, 0, 1),  # 0.9 of 10
    *[(0, 1, 0)] * 2, *[(0, 1, 1)] * 2,  # 0.5 of 4
    *[(1, 1, 1)] * 3, *[(1, 1, 0)] * 3,  # 0.5 of 6; nobody is in group (1, 0)
]  # fmt: skip


class Planted(DataSource):
    """Images [1, 1, 2] whose first pixel is the prediction."""

    splits = ("train", "val", "test")

    def __init__(self, *, attributes: bool = True, derived: bool = False) -> None:
        names = ("land", "water") if attributes else ()
        self.task = TaskSpec(2, (1, 1, 2), (0.0,), (1.0,), ("landbird", "waterbird"), names)
        self.derived = derived

    def split(self, name: str) -> Split:
        labels, attributes, predictions = torch.tensor({"train": TRAIN, "val": VAL, "test": TEST}[name]).unbind(1)
        images = predictions.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 1, 2)
        return Split(images, labels, attributes if self.task.attribute_names else None)

    def derived_metrics(self, measured: Mapping[str, float]) -> dict[str, float]:
        if not self.derived:
            return {}
        return {"test/gap": measured["test/group/landbird-land"] - measured["test/group/waterbird-water"]}


class Reader(Method):
    """Predicts what the image says; `concepts` are its surrogate groups by split."""

    def __init__(self, concepts: Mapping[str, Tensor] | None = None) -> None:
        self.concepts = concepts or {}

    def build(self, context: Context) -> None:
        self.context, self.learners = context, {}

    def predict(self, images: Tensor) -> Tensor:
        said = (images[:, 0, 0, 0] * 255).round().long()
        return torch.nn.functional.one_hot(said, 2).float() * 4

    def surrogate_groups(self, split: str) -> Tensor | None:
        return self.concepts.get(split)


def reader(data, runtime: Runtime, concepts: Mapping[str, Tensor] | None = None) -> Reader:
    method = Reader(concepts)

    def no_learner(*_: object, **__: object):
        raise AssertionError

    method.build(Context(data.task, data, runtime, 0, 1, 4, no_learner))
    return method
