"""Dominoes: a digit or a piece of clothing above, a CIFAR-10 image below (Shah et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.sources.grey_images import SIDE, Images, grey_images
from robustlab.data.sources.parquet import Parquet
from robustlab.data.sources.shortcuts import aligned, check_share, shuffled
from robustlab.data.sources.torchvision_sets import Torchvision

_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CLOTHES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
_SIDE = 32


class Dominoes(DataSource):
    """The class is given by the CIFAR-10 image below (two of ten classes), the attribute by the grey image above.

    Each half is 32x32, the grey one in RGB with a black frame. Validation images come from CIFAR-10's training images,
    test images from its test images. Training, validation and test also use different grey images; if there are fewer
    of them than CIFAR-10 images, each is used several times within its split.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        *,
        images: Images = "fashion_mnist",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        above: Sequence[int] | None = None,
        below: Sequence[int] = (1, 9),
        cifar: Literal["release", "parquet"] = "release",
        cifar_root: str | None = None,
        cache_dir: str | None = None,
        correlation: float = 0.95,
        eval_correlation: float = 0.5,
        train: int | None = None,
        val: int = 1000,
        test: int | None = None,
        seed: int = 0,
        mean: Sequence[float] = (0.366, 0.358, 0.354),
        std: Sequence[float] = (0.334, 0.332, 0.335),
    ) -> None:
        """Check the arguments.

        - images, root, file, download: as in `grey_images`, for the upper half; `download` also applies to CIFAR-10.
        - above: upper classes that go with classes 0 and 1; None for digits 0 and 1, or coat (4) and dress (3).
        - below: CIFAR-10 classes, by default automobile and truck.
        - cifar: "release" (the python version) or "parquet" (the Hub's uoft-cs/cifar10, decoded into `cache_dir`).
        - cifar_root: None for `root`, with parquet for cifar10/plain_text below it.
        - correlation, eval_correlation: share of each class with a = y in train, and in val and test.
        - train, val, test: number of images; None for all. `seed`: of all draws, independent of the run's seed.
        """
        check_share("correlation", correlation)
        check_share("eval_correlation", eval_correlation)
        if above is None:
            above = (4, 3) if images == "fashion_mnist" else (0, 1)
        _check_pair("above", above)
        _check_pair("below", below)
        if cifar not in ("release", "parquet"):
            raise ConfigError(f"dataset.source.cifar must be release or parquet, not {cifar!r}")
        self.images, self.root, self.file, self.download = images, root, file, download
        self.above, self.below = tuple(above), tuple(below)
        self.cifar, self.cache_dir, self.seed = cifar, cache_dir, seed
        default = Path(root) / "cifar10" / "plain_text" if cifar == "parquet" else root
        self.cifar_root = str(default) if cifar_root is None else cifar_root
        self.correlations = {"train": correlation, "val": eval_correlation, "test": eval_correlation}
        self.sizes = {"train": train, "val": val, "test": test}
        names = _CLOTHES if images == "fashion_mnist" else tuple(f"digit_{digit}" for digit in range(10))
        classes = tuple(_CIFAR_CLASSES[label] for label in self.below)
        attributes = tuple(names[label] for label in self.above)
        self.task = TaskSpec(2, (3, 2 * _SIDE, _SIDE), tuple(mean), tuple(std), classes, attributes)

    def split(self, name: str) -> Split:
        """Return "train", "val" or "test" with attributes. Raises ConfigError, DataError."""
        if name not in self.splits:
            raise ConfigError(f"dominoes has the splits train, val and test, not {name!r}")
        source = self._cifar().split("test" if name == "test" else "train")
        assert isinstance(source.images, Tensor)
        rows = self._rows(name, source.labels)
        labels = (source.labels[rows] == self.below[1]).long()
        key = rng.fold(self.seed, "dominoes", "attribute", name)
        attributes = aligned(labels, self.correlations[name], num_attributes=2, key=key, index=rows)
        images = torch.cat([self._upper(name, attributes), source.images[rows]], dim=2)
        return Split(images, labels, attributes)

    def _rows(self, name: str, classes: Tensor) -> Tensor:
        """Return the positions of a split's images in the CIFAR-10 split that they come from, sorted."""
        members = torch.nonzero((classes == self.below[0]) | (classes == self.below[1])).flatten()
        part = "test" if name == "test" else "train"
        members = members[shuffled(rng.fold(self.seed, "dominoes", "order", part), len(members))]
        val = self.sizes["val"] or 0
        there = members if name == "test" else members[:val] if name == "val" else members[val:]
        wanted = self.sizes[name]
        if not len(there) or (wanted is not None and not 1 <= wanted <= len(there)):
            raise ConfigError(
                f"dataset.source.{name}={wanted} of {len(members)} images of these two classes in CIFAR-10's {part} "
                f"split, {val} of them for val; set dataset.source.train, val and test so that all have images"
            )
        return there[:wanted].sort().values

    def _upper(self, name: str, attributes: Tensor) -> Tensor:
        """Return the upper halves, (N, 3, 32, 32) uint8, of class `above[attribute]`."""
        grey = grey_images(self.images, root=self.root, file=self.file, download=self.download)
        pixels, classes = (grey.test, grey.test_labels) if name == "test" else (grey.train, grey.train_labels)
        chosen = torch.empty(len(attributes), dtype=torch.int64)
        for attribute, label in enumerate(self.above):
            pool = self._pool(name, label, classes)
            members = torch.nonzero(attributes == attribute).flatten()
            chosen[members] = pool[torch.arange(len(members)) % len(pool)]
        frame = (_SIDE - SIDE) // 2
        framed = F.pad(pixels[chosen], (frame, frame, frame, frame))
        return framed[:, None].expand(-1, 3, -1, -1)

    def _pool(self, name: str, label: int, classes: Tensor) -> Tensor:
        """Return the grey images of one class that a split may use, shuffled; val gets a tenth of the training ones."""
        pool = torch.nonzero(classes == label).flatten()
        part = "test" if name == "test" else "train"
        pool = pool[shuffled(rng.fold(self.seed, "dominoes", "above", part, label), len(pool))]
        tenth = -(-len(pool) // 10)
        pool = {"train": pool[tenth:], "val": pool[:tenth], "test": pool}[name]
        if not len(pool):
            raise ConfigError(f"{self.images} has too few images of class {label} for the {name} split of dominoes")
        return pool

    def _cifar(self) -> DataSource:
        if self.cifar == "release":
            return Torchvision(
                "cifar10", root=self.cifar_root, download=self.download, mean=self.task.mean, std=self.task.std
            )
        return Parquet(self.cifar_root, num_classes=10, cache_dir=self.cache_dir)


def _check_pair(key: str, pair: Sequence[int]) -> None:
    if len(pair) != 2 or pair[0] == pair[1] or any(label not in range(10) for label in pair):
        raise ConfigError(f"dataset.source.{key} must be two different classes of 0..9, not {list(pair)}")
