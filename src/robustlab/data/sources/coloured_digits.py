"""The base of the four variants of coloured MNIST in use, which differ in classes, colours, splits and scores.

The definitions follow the variants' own code; the random draws are ours, from the source's seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.sources.grey_images import GreyImages, grey_images

LABEL_NOISE = 0.25
RED_GREEN = ("red", "green")


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


def in_channel(pixels: Tensor, channel: Tensor, *, channels: int) -> Tensor:
    """Return uint8 [N, channels, h, w]: each grey image uint8 [N, h, w] in one channel, the others empty."""
    images = pixels.new_zeros((len(pixels), channels, *pixels.shape[1:]))
    images[torch.arange(len(pixels)), channel] = pixels
    return images
