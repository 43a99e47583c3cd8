"""A small data set with attributes, and one that gives another source's samples attributes of one's choice."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from robustlab.data.dataset import DataSource, Split, TaskSpec
from tests.data.toy_source import Toy


class Grouped(DataSource):
    """The samples of another source, with `attribute(split name, labels)` as their attribute."""

    def __init__(
        self,
        source: DataSource,
        attribute: Callable[[str, Tensor], Tensor],
        *,
        names: tuple[str, ...] = ("land", "water"),
    ) -> None:
        self.task = replace(source.task, attribute_names=names)
        self.source, self.attribute = source, attribute
        self.splits, self.provides = source.splits, source.provides

    def split(self, name: str) -> Split:
        split = self.source.split(name)
        return replace(split, attributes=self.attribute(name, split.labels))


class ThreeWay(Toy):
    """`Toy` of two classes with a validation split of its own."""

    splits = ("train", "val", "test")

    def __init__(self, count: int = 40, **options) -> None:
        super().__init__(count, 2, **options)
        shape, mean, std = self.task.image_shape, self.task.mean, self.task.std
        self.task = TaskSpec(2, shape, mean, std, ("landbird", "waterbird"))


def biased(name: str, labels: Tensor) -> Tensor:
    """Mostly the label in training, unrelated to it elsewhere."""
    place = torch.arange(len(labels))
    return torch.where(place % 7 < 6, labels, 1 - labels) if name == "train" else place // 2 % 2


class WithValidation(DataSource):
    """Another source, whose test split is shared out in turn between "val" and "test"."""

    splits = ("train", "val", "test")

    def __init__(self, source: DataSource) -> None:
        self.task, self.source, self.provides = source.task, source, source.provides

    def split(self, name: str) -> Split:
        if name == "train":
            return self.source.split("train")
        split = self.source.split("test")
        assert isinstance(split.images, Tensor)
        first = 0 if name == "val" else 1
        return Split(split.images[first::2], split.labels[first::2])
