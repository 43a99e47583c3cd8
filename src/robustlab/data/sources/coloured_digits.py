"""Base class of four common variants of coloured MNIST, which differ in classes, colours, splits and metrics.

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
    """Base class of the variants, which reads the digits; subclasses colour and split them."""

    def __init__(self, task: TaskSpec, *, images: str, root: str, file: str | None, download: bool, seed: int) -> None:
        """Keep where the digits come from.

        - images, root, file, download: as in `grey_images`.
        - seed: seed of all draws, independent of the run's seed.
        """
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
    """Put each grey image, (N, h, w) uint8, into one channel: (N, channels, h, w) uint8, the other channels zero."""
    images = pixels.new_zeros((len(pixels), channels, *pixels.shape[1:]))
    images[torch.arange(len(pixels)), channel] = pixels
    return images
