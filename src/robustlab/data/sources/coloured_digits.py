"""Coloured MNIST in the four variants that are in use; they differ in classes, colours, splits and what is scored.

The definitions are those of the variants' own code; the random draws are ours, from the source's seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.sources.grey_images import SIDE, GreyImages, Images, grey_images
from robustlab.data.sources.shortcuts import aligned, check_share, flipped, shuffled
from robustlab.data.transforms.transform import single_thread
from robustlab.core.errors import ConfigError

_LABEL_NOISE = 0.25
_RED_GREEN = ("red", "green")
_NAMED_COLOURS = {  # of `CMNIST10`, by digit; the release keeps its ten colours in a file, these are ours
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (225, 225, 0), "magenta": (225, 0, 225),
    "cyan": (0, 255, 255), "orange": (255, 128, 0), "pink": (255, 0, 128), "violet": (128, 0, 255),
    "grey": (128, 128, 128),
}  # fmt: skip
_HUES = {  # of `CMNISTPairs`: hue 0, 0.2, 0.4, 0.6, 0.8 at full saturation
    "red": (255, 0, 0), "yellow_green": (203, 255, 0), "spring_green": (0, 255, 102), "azure": (0, 102, 255),
    "purple": (204, 0, 255),
}  # fmt: skip
_COLOUR_NOISE = (0.05, 0.02, 0.01, 0.005)  # standard deviation per severity
_CHUNK = 4096
_PAINTED = 120  # grey level from which `CMNISTPairs` paints a pixel


class ColouredDigits(DataSource):
    """Base of the variants: where the digits come from. A subclass says what becomes of them."""

    def __init__(self, task: TaskSpec, *, images: str, root: str, file: str | None, download: bool, seed: int) -> None:
        """images, root, file, download: as `grey_images`. seed: of all draws; the run's seed changes nothing."""
        self.task = task
        self.images, self.root, self.file, self.download, self.seed = images, root, file, download, seed

    def split(self, name: str) -> Split:
        """Return one of `splits` with attributes. Raises ConfigError, DataError."""
        if name not in self.splits:
            raise ConfigError(f"this data set has the splits {', '.join(self.splits)}, not {name!r}")
        grey = grey_images(self.images, root=self.root, file=self.file, download=self.download)
        return self._made(name, grey)

    def _made(self, name: str, grey: GreyImages) -> Split:
        raise NotImplementedError

    def _key(self, purpose: str) -> int:
        return rng.fold(self.seed, type(self).__name__, purpose)


class CMNISTIrm(ColouredDigits):
    """Arjovsky et al. 2019: 14x14, two channels; digits 5-9 (0) and 0-4 (1), a quarter of the labels wrong.

    The colour is the label, flipped with probability 0.2 for even and 0.1 for odd training images (the two
    environments, in turn) and 0.9 for test. The first 5/6 of MNIST's training images are shuffled and train; the last
    sixth tests (splits "original"), or is a validation split like train while MNIST's test images test ("forks").
    Labels are noisy by construction: no honest classifier exceeds 75 %.
    """

    provides: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        protocol: str = "original",
        seed: int = 0,
        mean: Sequence[float] = (0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0),
    ) -> None:
        """protocol: "original" (train, test) or "forks" (train, val, test). Others as `ColouredDigits`."""
        if protocol not in ("original", "forks"):
            raise ConfigError(f"dataset.source.protocol must be original or forks, not {protocol!r}")
        task = TaskSpec(2, (2, SIDE // 2, SIDE // 2), tuple(mean), tuple(std), ("5-9", "0-4"), _RED_GREEN)
        super().__init__(task, images=images, root=root, file=file, download=download, seed=seed)
        self.protocol = protocol
        self.splits = ("train", "test") if protocol == "original" else ("train", "val", "test")

    def _made(self, name: str, grey: GreyImages) -> Split:
        first = len(grey.train) * 5 // 6
        last = torch.arange(first, len(grey.train))
        rows = shuffled(self._key("order"), first) if name == "train" else last
        pixels, digits = grey.train[rows], grey.train_labels[rows]
        if name == "test" and self.protocol == "forks":
            pixels, digits = grey.test, grey.test_labels
        index = torch.arange(len(digits))
        labels = flipped((digits < 5).long(), _LABEL_NOISE, key=self._key(f"{name} labels"), index=index)
        even, odd = (flipped(labels, e, key=self._key(f"{name} colours"), index=index) for e in (0.2, 0.1))
        colours = torch.where(index % 2 == 0, even, odd)
        if name == "test":
            colours = flipped(labels, 0.9, key=self._key("test colours"), index=index)
        return Split(_in_channel(pixels[:, ::2, ::2], colours, channels=2), labels, colours)


class CMNISTSubpop(ColouredDigits):
    """SubpopBench (Yang et al., ICML 2023): red or green digits; digits 0-4 (0) and 5-9 (1), a quarter wrong.

    The colour is the label, flipped with probability 0.2, in all splits: the first half of MNIST's training images
    train, the next sixth validates, the last third tests. The worst group is what is scored. Images stay 28x28: the
    benchmark's 224x224 is a transform.
    """

    splits = ("train", "val", "test")
    provides: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        label_share: float = 0.5,
        attribute_share: float = 0.5,
        seed: int = 0,
        mean: Sequence[float] = (0.1307, 0.1307, 0.0),
        std: Sequence[float] = (0.3081, 0.3081, 0.3081),
    ) -> None:
        """label_share, attribute_share: of class 1 and of green in every split, reached by leaving images out.

        0.5 leaves none out. Attributes are thinned out first, then labels. Others as `ColouredDigits`.
        """
        for key, share in (("label_share", label_share), ("attribute_share", attribute_share)):
            if not 0.0 < share < 1.0:
                raise ConfigError(f"dataset.source.{key} must lie between 0 and 1, not {share}")
        task = TaskSpec(2, (3, SIDE, SIDE), tuple(mean), tuple(std), ("0-4", "5-9"), _RED_GREEN)
        super().__init__(task, images=images, root=root, file=file, download=download, seed=seed)
        self.label_share, self.attribute_share = label_share, attribute_share

    def _made(self, name: str, grey: GreyImages) -> Split:
        total = len(grey.train)
        ends = {"train": (0, total // 2), "val": (total // 2, total * 2 // 3), "test": (total * 2 // 3, total)}
        index = torch.arange(*ends[name])
        labels = (grey.train_labels[index] >= 5).long()
        labels = flipped(labels, _LABEL_NOISE, key=self._key("labels"), index=index)
        colours = flipped(labels, 0.2, key=self._key("colours"), index=index)
        kept = torch.arange(len(index))
        kept = kept[self._thinned(colours, self.attribute_share, index)]
        kept = kept[self._thinned(labels[kept], self.label_share, index[kept])]
        pixels = _in_channel(grey.train[index[kept]], colours[kept], channels=3)
        return Split(pixels, labels[kept], colours[kept])

    def _thinned(self, values: Tensor, share: float, index: Tensor) -> Tensor:
        """Return the places, in order, that are left when ones make up `share` of the values."""
        if share == 0.5:
            return torch.arange(len(values))
        thinned = int(share < 0.5)  # the value that is too frequent
        odds = share / (1 - share) if thinned else (1 - share) / share
        members = torch.nonzero(values == thinned).flatten()
        wanted = min(len(members), int((len(values) - len(members)) * odds))
        order = torch.argsort(rng.uniform(self._key("thinning"), index[members], 1)[:, 0], stable=True)
        return torch.cat([torch.nonzero(values != thinned).flatten(), members[order[:wanted]]]).sort().values


class CMNIST10(ColouredDigits):
    """Learning from Failure (Nam et al., NeurIPS 2020): ten digits, each with a colour of its own.

    A share of each digit's training images has its colour ("aligned": 0.95, 0.98, 0.99 or 0.995 in the paper), the
    others the other nine in equal parts; of MNIST's test images a tenth is aligned. A pixel is the grey level times a
    colour that varies from image to image, less at a higher severity.
    """

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        aligned_share: float = 0.95,
        severity: int = 1,
        seed: int = 0,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """aligned_share: of the training images. severity: 1 to 4. Others as `ColouredDigits`."""
        check_share("aligned_share", aligned_share)
        if severity not in range(1, len(_COLOUR_NOISE) + 1):
            raise ConfigError(f"dataset.source.severity must be 1, 2, 3 or 4, not {severity}")
        names = tuple("0123456789")
        task = TaskSpec(10, (3, SIDE, SIDE), tuple(mean), tuple(std), names, tuple(_NAMED_COLOURS))
        super().__init__(task, images=images, root=root, file=file, download=download, seed=seed)
        self.aligned_share, self.severity = aligned_share, severity

    def _made(self, name: str, grey: GreyImages) -> Split:
        train = name == "train"
        pixels, labels = (grey.train, grey.train_labels) if train else (grey.test, grey.test_labels)
        index = torch.arange(len(labels))
        share = self.aligned_share if train else 0.1
        colours = aligned(labels, share, num_attributes=10, key=self._key(f"{name} colours"), index=index)
        u = rng.uniform(self._key(f"{name} shades"), index, 6).double().clamp_min(1e-12)
        normal = (-2 * u[:, :3].log()).sqrt() * torch.cos(2 * math.pi * u[:, 3:])  # Box and Muller
        mean = torch.tensor(list(_NAMED_COLOURS.values()), dtype=torch.float64)[colours] / 255
        colour = (mean + _COLOUR_NOISE[self.severity - 1] * normal).clamp(0.0, 1.0)[:, :, None, None]
        with single_thread():
            painted = [(colour[part] * pixels[part][:, None]).to(torch.uint8) for part in index.split(_CHUNK)]
        return Split(torch.cat(painted), labels, colours)


class CMNISTPairs(ColouredDigits):
    """Correct-n-Contrast (Zhang et al., ICML 2022): classes {0, 1}, {2, 3}, ..., {8, 9} and five hues.

    A training image has the hue of its class with probability 0.995, else one of the other four; pixels of grey level
    120 and above are painted, the rest stays grey. Validation (a random part of MNIST's training images) and test have
    random hues.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        correlation: float = 0.995,
        val_share: float = 0.2,
        seed: int = 0,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        """correlation: probability of the class's hue in train. val_share: of MNIST's training images.

        Others as `ColouredDigits`.
        """
        check_share("correlation", correlation)
        if not 0.0 < val_share < 1.0:
            raise ConfigError(f"dataset.source.val_share must lie between 0 and 1, not {val_share}")
        names = ("01", "23", "45", "67", "89")
        task = TaskSpec(5, (3, SIDE, SIDE), tuple(mean), tuple(std), names, tuple(_HUES))
        super().__init__(task, images=images, root=root, file=file, download=download, seed=seed)
        self.correlation, self.val_share = correlation, val_share

    def _made(self, name: str, grey: GreyImages) -> Split:
        pixels, digits, index = grey.test, grey.test_labels, torch.arange(len(grey.test))
        if name != "test":
            order = shuffled(self._key("order"), len(grey.train))
            held_out = round(self.val_share * len(order))
            index = order[:held_out] if name == "val" else order[held_out:]
            pixels, digits = grey.train[index], grey.train_labels[index]
        labels = digits // 2
        u = rng.uniform(self._key(f"{name} hues"), index, 2)
        other = (labels + 1 + (u[:, 1] * 4).long().clamp(max=3)) % 5
        hues = torch.where(u[:, 0] < self.correlation, labels, other)
        if name != "train":
            hues = (u[:, 0] * 5).long().clamp(max=4)
        hue = torch.tensor(list(_HUES.values()), dtype=torch.uint8)[hues]
        painted = torch.where((pixels >= _PAINTED)[:, None], hue[:, :, None, None], pixels[:, None])
        return Split(painted, labels, hues)


def _in_channel(pixels: Tensor, channel: Tensor, *, channels: int) -> Tensor:
    """Return uint8 [N, channels, h, w]: each grey image uint8 [N, h, w] in one channel, the others empty."""
    images = pixels.new_zeros((len(pixels), channels, *pixels.shape[1:]))
    images[torch.arange(len(pixels)), channel] = pixels
    return images
