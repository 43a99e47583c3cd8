"""The contract of data sets: a task description and named splits of images with labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class TaskSpec:
    """The properties of a data set that models and evaluation need.

    Class y and attribute a form group g = y * num_attributes + a.

    - image_shape: (channels, height, width) of a decoded training image.
    - mean, std: per channel, for pixels in [0, 1].
    - attribute_names: values of the attribute that is spuriously correlated with the class, e.g. ("land", "water");
      empty if there is no such attribute.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()

    @property
    def num_attributes(self) -> int:
        """Number of attribute values; 0 without an attribute."""
        return len(self.attribute_names)

    @property
    def num_groups(self) -> int:
        """Number of (class, attribute) groups; 0 without an attribute."""
        return self.num_classes * self.num_attributes

    @property
    def group_names(self) -> tuple[str, ...]:
        """Name of each group, "<class>-<attribute>", in the order of g; a "/" in a name becomes "_"."""
        return tuple(f"{y}-{a}".replace("/", "_") for y in self.label_names for a in self.attribute_names)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class as used in metric names: without "/", or its number if it has no name."""
        names = self.class_names or tuple(map(str, range(self.num_classes)))
        return tuple(name.replace("/", "_") for name in names)


class LazyImages(Protocol):
    """Images that are decoded on demand by the workers of the streaming loader. Must be picklable."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def decode(self, index: int) -> Tensor:
        """Return image `index` in its original size, (C, h, w) uint8. Raises `DataError` that names the file or row."""
        ...


@dataclass(frozen=True)
class Split:
    """A named part of a data set. The position of a sample is its stable index.

    - images: (N, C, H, W) uint8 (resident), or `LazyImages` (streaming).
    - labels: the data set's own labels, (N,) int64.
    - attributes: (N,) int64 in 0..num_attributes-1, None if unknown.
    - names: file name of each sample, None if there are no files.
    """

    images: Tensor | LazyImages
    labels: Tensor
    attributes: Tensor | None = None
    names: tuple[str, ...] | None = None


class DataSource(ABC):
    """A data set. Constructor arguments are its configuration; nothing is read before `split` is called.

    - provides: properties beyond images and labels, e.g. "clean_labels" if the source's labels are known to be correct,
      so that synthetic noise can be measured against them.
    - splits: all names that `split` accepts. Every evaluation measures each of them except "train", so a split that
      depends on settings or files must be listed only if it exists.
    - on_error: what to do about a damaged image, "raise" or "skip"; the latter only if `can_skip` is set.
    """

    task: TaskSpec
    provides: frozenset[str] = frozenset({"clean_labels"})
    splits: tuple[str, ...] = ("train", "test")
    can_skip: bool = False
    on_error: str = "raise"

    @property
    def skipped(self) -> Mapping[str, Mapping[str, str]]:
        """The skipped damaged images: split read so far -> file -> reason."""
        return {}

    @abstractmethod
    def split(self, name: str) -> Split:
        """Return one of `splits`, with the same samples in the same order every time. Raises ConfigError, DataError."""

    def derived_metrics(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return metrics derived from those of an evaluation, e.g. {"test/bg_gap": 0.14}."""
        return {}


@dataclass
class Batch:
    """One batch on the device.

    - index: stable indices in the split, (B,) int64.
    - targets: the *assigned* labels, (B,) int64; None from an unlabelled loader.
    - views: augmented, normalised images, (B, C, H, W) float each.
    - total: number of rows in the global batch, of which rank r has rows r, r + world_size, ...; B with one rank.
    """

    index: Tensor
    targets: Tensor | None
    views: tuple[Tensor, ...]
    total: int

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self.index.shape[0])


def check_statistics(task: TaskSpec) -> None:
    """Raise ConfigError unless every channel has a mean and a positive standard deviation."""
    channels = task.image_shape[0]
    for name, values in (("mean", task.mean), ("std", task.std)):
        if len(values) != channels:
            raise ConfigError(
                f"dataset.source.{name}: expected {channels} number(s), one per channel, got {len(values)}: "
                f"{list(values)}"
            )
    if min(task.std) <= 0:
        raise ConfigError(f"dataset.source.std: expected numbers above 0, got {list(task.std)}")


def check_labels(
    labels: Tensor, num_classes: int, *, where: str, names: Sequence[str] = (), key: str | None = None
) -> None:
    """Raise `DataError` unless every label lies in [0, num_classes) and every class has a sample.

    - where: name of the data, for the message.
    - names: names of the classes, for the message.
    - key: the setting for the number of classes, if there is one.
    """
    change = f" or set {key}" if key else ""
    bad = torch.nonzero((labels < 0) | (labels >= num_classes)).flatten()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{where}: {len(bad)} label(s) outside 0..{num_classes - 1}, the first in row {row} "
            f"(label {int(labels[row])}); correct the labels{change}"
        )
    empty = torch.nonzero(torch.bincount(labels, minlength=num_classes) == 0).flatten().tolist()
    if empty:
        shown = [f"{one} ({names[one]})" if one < len(names) else str(one) for one in empty[:10]]
        raise DataError(f"{where}: no samples of class {', '.join(shown)}; add some, or remove the class{change}")


def check_attributes(attributes: Tensor, count: int, task: TaskSpec, *, where: str) -> None:
    """Raise `DataError` that names `where` unless all `count` samples have an attribute in [0, num_attributes)."""
    if attributes.shape != (count,):
        raise DataError(f"{where}: {tuple(attributes.shape)} attributes for {count} samples; fix the metadata")
    bad = torch.nonzero((attributes < 0) | (attributes >= task.num_attributes)).flatten()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{where}: {len(bad)} attribute(s) outside 0..{task.num_attributes - 1}, the first in row {row} "
            f"(attribute {int(attributes[row])}); fix the metadata"
        )
