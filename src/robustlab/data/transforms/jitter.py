"""Batched colour jitter and random erasing, with independent draws per sample."""

from __future__ import annotations

import math
from itertools import permutations

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.transforms.policies import OPERATIONS, Staged
from robustlab.data.transforms.transform import Transform, integers, rectangles

_ORDERS = torch.tensor(list(permutations(range(4))))


class ColorJitter(Staged):
    """Random brightness, contrast, saturation and hue, in a random order per sample (as in torchvision)."""

    draws = 5

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        """Check the strengths.

        - brightness, contrast, saturation: factors are drawn from [max(0, 1 - value), 1 + value].
        - hue: shifts are drawn from [-hue, hue], in turns.
        """
        super().__init__()
        strengths = {"Brightness": brightness, "Contrast": contrast, "Color": saturation, "Hue": hue}
        if min(strengths.values()) < 0 or hue > 0.5:
            raise ConfigError(f"ColorJitter needs strengths >= 0 and hue <= 0.5, got {strengths}")
        factors = [(max(0.0, 1.0 - value), 1.0 + value) for value in (brightness, contrast, saturation)]
        low, high = zip(*factors, (-hue, hue), strict=True)
        self._low, self._span = torch.tensor(low), torch.tensor(high) - torch.tensor(low)
        self._number = torch.tensor([OPERATIONS.index(name) if strengths[name] else 0 for name in strengths])

    def choose(self, u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the choices; u: order, then one value per operation."""
        order = _ORDERS[integers(u[:, 0], len(_ORDERS))]
        value = self._low + u[:, 1:] * self._span
        return self._number[order], value.gather(1, order)


class Erase(Transform):
    """Fill a random rectangle with some probability (Random Erasing, Zhong et al. 2020; Cutout with a fixed scale)."""

    def __init__(
        self,
        probability: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: int = 0,
        attempts: int = 4,
    ) -> None:
        """Check the arguments.

        - scale: bounds of the rectangle's area as a fraction of the image.
        - ratio: bounds of height over width, log-uniform.
        - fill: grey level.
        - attempts: how often a rectangle is drawn until it fits; after that the sample stays unchanged.
        """
        if not 0.0 <= probability <= 1.0 or not 0 <= fill <= 255 or attempts < 1:
            raise ConfigError(
                "Erase needs probability in [0, 1], fill in 0..255 and attempts >= 1, "
                f"got {probability}, {fill}, {attempts}"
            )
        check_ranges("Erase", scale, ratio)
        self.probability, self.fill, self.attempts = probability, fill, attempts
        self.scale, self.ratio = (scale[0], scale[1]), (math.log(ratio[0]), math.log(ratio[1]))
        self.draws = 3 + 2 * attempts

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the images; u: whether, row, column, then area and ratio of each attempt."""
        height, width = images.shape[2:]
        tall, wide, fits = rectangles(u[:, 3:], height, width, scale=self.scale, log_ratio=self.ratio)
        chosen = fits & (u[:, 0] < self.probability)
        top = integers(u[:, 1], height - tall + 1)
        left = integers(u[:, 2], width - wide + 1)
        rows, columns = torch.arange(height, device=u.device), torch.arange(width, device=u.device)
        inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None]) & chosen[:, None]
        inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
        mask = (inside_rows[:, None, :, None] & inside_columns[:, None, None, :]).to(torch.uint8).neg_()  # 0 or 255
        mask = mask.to(images.device, non_blocking=True)
        return images ^ ((images ^ self.fill) & mask)


def check_ranges(name: str, scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """Raise ConfigError unless both are (low, high) with 0 < low <= high."""
    for what, bounds in (("scale", scale), ("ratio", ratio)):
        if len(bounds) != 2 or not 0.0 < bounds[0] <= bounds[1]:
            raise ConfigError(f"{name} needs {what} = [low, high] with 0 < low <= high, got {bounds}")
