"""Instance-dependent label noise: the wrong class assigned to an image depends on its pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import LazyImages
from robustlab.data.noise.noise_model import NoiseModel, check_rate

_ROWS = 512  # images converted to float64 at once


class InstanceDependent(NoiseModel):
    """The part-dependent recipe of Xia et al. (NeurIPS 2020).

    Sample i flips with probability f_i ~ Normal(rate, std^2) truncated to [0, 1], to class c with probability
    proportional to exp((x_i W_y)_c), where y is its clean class, x_i its pixels in [0, 1] and W_y a standard normal
    matrix of shape (C * H * W, num_classes); for images of usual size almost all of that probability is on one class.

    - shared_w: one matrix for all classes, the variant distributed with the CIFAR-N code.
    """

    asymmetric = False

    def __init__(self, *, rate: float, std: float = 0.1, shared_w: bool = False) -> None:
        """See the class."""
        if not 0.0 < std <= 1.0:
            raise ConfigError(f"noise.model.std={std} lies outside (0, 1]")
        self.rate, self.std, self.shared_w = check_rate(rate), float(std), shared_w

    def apply(
        self, clean: Tensor, *, num_classes: int, generator: np.random.Generator, images: Tensor | LazyImages | None
    ) -> Tensor:
        """Return the assigned labels, (N,) int64. Raises ConfigError if images are missing or differ in size."""
        if images is None:
            raise ConfigError("noise=instance depends on the images, but there are none")
        assigned = clean.clone()
        if self.rate == 0 or not len(clean):
            return assigned
        flip_rate = torch.from_numpy(self._flip_rates(generator, len(clean)))
        draw = torch.from_numpy(generator.random(len(clean)))
        size = _image(images, 0).numel()
        projection = self._projection(generator, size, num_classes)
        for label in range(num_classes):
            if label > 0 and not self.shared_w:
                projection = self._projection(generator, size, num_classes)
            members = torch.nonzero(clean == label).flatten()
            for rows, pixels in _pixels(images, members):
                logits = pixels @ projection
                logits[:, label] = -torch.inf
                probability = flip_rate[rows, None] * logits.softmax(dim=1)
                probability[:, label] = 1.0 - flip_rate[rows]
                cumulative = probability.cumsum(dim=1)
                drawn = torch.searchsorted(cumulative, draw[rows, None] * cumulative[:, -1:], right=True)
                assigned[rows] = drawn.flatten().clamp_(max=num_classes - 1)
        return assigned

    def _flip_rates(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return `count` draws of the truncated normal, by rejection sampling."""
        rates = generator.normal(self.rate, self.std, count)
        while (outside := (rates < 0) | (rates > 1)).any():
            rates[outside] = generator.normal(self.rate, self.std, int(outside.sum()))
        return rates

    @staticmethod
    def _projection(generator: np.random.Generator, size: int, num_classes: int) -> Tensor:
        # float64 throughout: threads change the last bits of a matrix product, which must not change labels
        return torch.from_numpy(generator.standard_normal((size, num_classes)))


def _image(images: Tensor | LazyImages, index: int) -> Tensor:
    return images[index] if isinstance(images, Tensor) else images.decode(index)


def _pixels(images: Tensor | LazyImages, members: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows, (b,) int64, and their pixels, (b, C * H * W) float64 in [0, 1]."""
    for rows in members.split(_ROWS):
        if isinstance(images, Tensor):
            batch = images[rows].cpu()
        else:
            decoded = [images.decode(row) for row in rows.tolist()]
            if len({image.shape for image in decoded}) > 1:
                raise ConfigError("noise=instance needs images of one size; this data set's differ")
            batch = torch.stack(decoded)
        yield rows, batch.flatten(1).to(torch.float64) / 255
