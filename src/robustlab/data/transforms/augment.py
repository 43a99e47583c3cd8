"""Batched augmentation with independent random draws per sample, followed by normalisation and MixUp.

The rules for transforms are in `robustlab.data.transforms.transform`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import torch
from torch import Tensor

from robustlab.config.kinds import Range
from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.transforms.transform import Transform, choose, cut, integers, pad, reflect


class PadCrop(Transform):
    """Pad on all sides, then crop at a random position; with padding 4, CIFAR's weak augmentation."""

    draws = 2

    def __init__(
        self,
        padding: Annotated[int, Range(low=0)] = 4,
        fill: Annotated[int, Range(low=0, high=255)] | Literal["reflect"] = 0,
        size: Annotated[int, Range(low=1)] | None = None,
    ) -> None:
        """Check the arguments.

        - padding: pixels on each side.
        - fill: their grey level, or "reflect" to mirror the image at its border.
        - size: side of the crop; None for the image's size.
        """
        grey = fill == "reflect" or (isinstance(fill, int) and 0 <= fill <= 255)
        if padding < 0 or not grey or (size is not None and size < 1):
            raise ConfigError(
                f"PadCrop needs padding >= 0, fill in 0..255 or reflect, size >= 1; got {padding}, {fill}, {size}"
            )
        self.padding, self.fill, self.size = padding, fill, size

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Choose the row by u[:, 0] and the column by u[:, 1].

        Raises ConfigError if the crop is larger than the padded image, or the image is too small to be mirrored.
        """
        height, width = self.size or images.shape[2], self.size or images.shape[3]
        if not self.padding:
            padded = images.contiguous()
        elif isinstance(self.fill, int):
            padded = pad(images, self.padding, self.padding, self.fill)
        elif self.padding < min(images.shape[2:]):
            padded = reflect(images, self.padding)
        else:
            raise ConfigError(f"PadCrop(padding={self.padding}) cannot mirror images of {tuple(images.shape[2:])}")
        rows, columns = padded.shape[2] - height + 1, padded.shape[3] - width + 1
        if rows < 1 or columns < 1:
            raise ConfigError(f"PadCrop(size={self.size}) is larger than the padded image {tuple(padded.shape[2:])}")
        return cut(padded, integers(u[:, 0], rows), integers(u[:, 1], columns), height, width)


class Flip(Transform):
    """Flip horizontally with a given probability."""

    draws = 1

    def __init__(self, probability: Annotated[float, Range(low=0, high=1)] = 0.5) -> None:
        """Flip with a `probability` in [0, 1]."""
        if not 0.0 <= probability <= 1.0:
            raise ConfigError(f"Flip needs a probability in [0, 1], got {probability}")
        self.probability = probability

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Flip the samples with u < probability."""
        chosen = (u < self.probability).to(images.device, non_blocking=True)
        return choose(chosen[:, 0], images.flip(3), images)


@lru_cache(maxsize=64)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], repeats: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return scale and shift, (C * repeats,) float32, with (x / 255 - mean) / std = scale * x + shift."""
    deviation = torch.tensor(std, dtype=torch.float64)
    shift = -torch.tensor(mean, dtype=torch.float64) / deviation
    scale = 1.0 / (255.0 * deviation)
    return scale.float().repeat(repeats).to(device), shift.float().repeat(repeats).to(device)


def normalize(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Return (images / 255 - mean) / std, (B, C, H, W) float32 in `memory_format`.

    - images: (B, C, H, W) uint8.
    - mean, std: per channel, for pixels in [0, 1].

    Raises ConfigError if mean and std do not fit the channels.
    """
    count, channels, height, width = images.shape
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ConfigError(
            f"normalize needs a mean and a positive std for each of {channels} channels, got mean={mean}, std={std}"
        )
    if memory_format is not torch.channels_last:
        scale, shift = _scale_and_shift(tuple(mean), tuple(std), 1, images.device)
        return images.float().mul_(scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1))
    # Reorder bytes before converting to floats, and scale whole rows at once instead of C values at a time.
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), width, images.device)
    rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
    return rows.float().mul_(scale).add_(shift).view(count, height, width, channels).permute(0, 3, 1, 2)


def mixup(
    inputs: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    generator: torch.Generator,
    at_least_half: bool = False,
    own: Tensor | None = None,
) -> tuple[Tensor, Tensor, float]:
    """Mix every row with a random partner, with one lambda ~ Beta(alpha, alpha) for the whole batch (Zhang 2018).

    Returns (inputs, targets, lambda), where each row is lambda * row + (1 - lambda) * partner.

    - inputs: (B, ...) float.
    - targets: (B, C) float, all of which are mixed.
    - alpha: 0 gives lambda = 1, which leaves inputs and targets unchanged.
    - generator: CPU generator, the only source of randomness.
    - at_least_half: replace lambda by max(lambda, 1 - lambda) (DivideMix, CrossSplit).
    - own: positions of the inputs to mix, int64 on the CPU; None for all.
    """
    if alpha < 0:
        raise ConfigError(f"mixup needs alpha >= 0, got {alpha}")
    # torch's Beta does not accept a generator, so use NumPy's, seeded from ours
    seed = int(torch.randint(2**62, (), generator=generator))
    partner = torch.randperm(len(inputs), generator=generator)
    mix = float(rng.numpy_generator(seed).beta(alpha, alpha)) if alpha > 0 else 1.0
    if at_least_half:
        mix = max(mix, 1.0 - mix)
    mixed = _blend_rows(targets, targets, partner, mix)
    if own is None:
        return _blend_rows(inputs, inputs, partner, mix), mixed, mix
    rows = inputs[own.to(inputs.device, non_blocking=True)]
    return _blend_rows(rows, inputs, partner[own], mix), mixed, mix


def _blend_rows(rows: Tensor, others: Tensor, partner: Tensor, weight: float) -> Tensor:
    """Return weight * rows + (1 - weight) * others[partner]."""
    return torch.lerp(others[partner.to(rows.device, non_blocking=True)], rows, weight)
