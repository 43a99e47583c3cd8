"""What a data set is: a task description and named splits of images with labels."""

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
    """What a model and an evaluation need to know of a data set.

    image_shape: (channels, height, width) of a decoded training image. mean, std: per channel, of pixels in [0, 1].
    attribute_names: values of the attribute that is spuriously correlated with the class, e.g. ("land", "water"); empty
    where the data set has none. Class y and attribute a make group g = y * num_attributes + a.
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
        """Name of each class as used in names of metrics: without "/", and its number where it has no name."""
        names = self.class_names or tuple(map(str, range(self.num_classes)))
        return tuple(name.replace("/", "_") for name in names)


class LazyImages(Protocol):
    """Images that are decoded when asked for, by the workers of the streaming loader. Must be picklable."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def decode(self, index: int) -> Tensor:
        """Return image `index` in its own size: uint8 [C, h, w]. Raises `DataError` naming the file or the row."""
        ...


@dataclass(frozen=True)
class Split:
    """One named part of a data set. `images[i]` and `labels[i]` belong together; i is the sample's stable index.

    images: uint8 [N, C, H, W] (resident), or `LazyImages` (streaming). labels: int64 [N], as the data set gives them.
    attributes: int64 [N] in 0..num_attributes-1, None where they are not known. names: file name of each sample, None
    where there are no files.
    """

    images: Tensor | LazyImages
    labels: Tensor
    attributes: Tensor | None = None
    names: tuple[str, ...] | None = None


class DataSource(ABC):
    """A data set. Constructor arguments are its configuration; nothing is read before `split` is called.

    `provides` names what splits carry beside images and labels, e.g. "clean_labels": true where the labels that the
    source gives are known to be right, so that synthetic noise can be told from them. splits: all that `split` can
    return; every evaluation measures each of them but "train", so a split that depends on settings or files is listed
    where it is there, and only there.
    on_error: what a damaged image means, "raise", or "skip" to leave it out; the latter where `can_skip` says so.
    """

    task: TaskSpec
    provides: frozenset[str] = frozenset({"clean_labels"})
    splits: tuple[str, ...] = ("train", "test")
    can_skip: bool = False
    on_error: str = "raise"

    @property
    def skipped(self) -> Mapping[str, Mapping[str, str]]:
        """The damaged images that were left out: for each split read so far, the reason for each file."""
        return {}

    @abstractmethod
    def split(self, name: str) -> Split:
        """Return one of `splits`; the same samples in the same order every time. Raises ConfigError, DataError."""

    def derived_metrics(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return metrics that follow from those of an evaluation, e.g. {"test/bg_gap": 0.14}; called after each one."""
        return {}


@dataclass
class Batch:
    """One batch on the device.

    index: int64 [B], stable position in the train (or test) split. targets: int64 [B], the *assigned* labels; None
    from an unlabelled loader, which drops them. views: each float [B, C, H, W], augmented and normalised. total: rows
    of the global batch, of which rank r of world_size has rows r, r + world_size, ...; B where there is one rank.
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
    """Raise ConfigError unless there is a mean and a positive standard deviation for each channel."""
    channels = task.image_shape[0]
    for name, values in (("mean", task.mean), ("std", task.std)):
        if len(values) != channels:
            raise ConfigError(
                f"dataset.source.{name}: expected {channels} number(s), one for each channel, got {len(values)}: "
                f"{list(values)}"
            )
    if min(task.std) <= 0:
        raise ConfigError(f"dataset.source.std: expected numbers above 0, got {list(task.std)}")


def check_labels(
    labels: Tensor, num_classes: int, *, where: str, names: Sequence[str] = (), key: str | None = None
) -> None:
    """Raise `DataError` unless every label lies in [0, num_classes) and every class has a sample; `where` names it.

    names: of the classes, for the message. key: the setting that says how many classes there are, where there is one.
    """
    change = f" or set {key}" if key else ""
    bad = torch.nonzero((labels < 0) | (labels >= num_classes)).flatten()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{where}: {len(bad)} labels lie outside 0..{num_classes - 1}, the first in row {row} "
            f"(label {int(labels[row])}); correct the labels{change}"
        )
    empty = torch.nonzero(torch.bincount(labels, minlength=num_classes) == 0).flatten().tolist()
    if empty:
        shown = [f"{one} ({names[one]})" if one < len(names) else str(one) for one in empty[:10]]
        raise DataError(f"{where}: no sample of class {', '.join(shown)}; add some, or leave the class out{change}")


def check_attributes(attributes: Tensor, count: int, task: TaskSpec, *, where: str) -> None:
    """Raise `DataError` unless each of `count` samples has an attribute in [0, num_attributes); `where` names them."""
    if attributes.shape != (count,):
        raise DataError(f"{where}: {tuple(attributes.shape)} attributes for {count} samples; mend the metadata")
    bad = torch.nonzero((attributes < 0) | (attributes >= task.num_attributes)).flatten()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{where}: {len(bad)} attributes lie outside 0..{task.num_attributes - 1}, the first in row {row} "
            f"(attribute {int(attributes[row])}); mend the metadata"
        )
