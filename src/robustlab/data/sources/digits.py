"""The 8x8 handwritten digits that ship inside scikit-learn: 1,797 real images, no download."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import DataSource, Split, TaskSpec

_SPLIT_SEED = 0  # a constant of the data set, so that every run is tested on the same images
_TEST_FRACTION = 0.2


class Digits(DataSource):
    """scikit-learn's `load_digits` (UCI optical digits, test part), with a fixed split into train and test.

    Images are (N, 1, 8, 8) uint8; the original grey levels 0..16 are scaled to 0..255. 20 % of each class, rounded, is
    the test split: 1,438 training and 359 test images.
    """

    def __init__(self, *, mean: Sequence[float] = (0.306,), std: Sequence[float] = (0.377,)) -> None:
        """Normalise with one `mean` and `std`, of pixels in [0, 1]."""
        self.task = TaskSpec(10, (1, 8, 8), tuple(mean), tuple(std), tuple("0123456789"))

    def split(self, name: str) -> Split:
        """Return "train" or "test"; the order within a split is scikit-learn's."""
        if name not in ("train", "test"):
            raise ConfigError(f"digits has the splits train and test, not {name!r}")
        from sklearn.datasets import load_digits  # imported here, since it takes half a second

        images, classes = load_digits(return_X_y=True)
        grey = torch.from_numpy(images).reshape(-1, 1, 8, 8)
        pixels = (grey * (255 / 16)).round().to(torch.uint8)
        labels = torch.from_numpy(classes).to(torch.int64)
        kept = torch.nonzero(_in_test(labels) == (name == "test")).flatten()
        return Split(pixels[kept].contiguous(), labels[kept])


def _in_test(labels: Tensor) -> Tensor:
    """Return which samples are test samples, (N,) bool: the same share of each class, by a counter-based hash."""
    draw = rng.uniform(rng.fold(_SPLIT_SEED, "digits", "test"), torch.arange(len(labels)), 1).flatten()
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = torch.nonzero(labels == label).flatten()
        order = members[torch.argsort(draw[members], stable=True)]
        chosen[order[: round(_TEST_FRACTION * len(members))]] = True
    return chosen
