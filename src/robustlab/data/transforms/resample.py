"""Transforms that resample or crop images: random affine maps, random resized crops, resize, centre crop."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.transforms import geometry
from robustlab.data.transforms.colour_ops import to_bytes
from robustlab.data.transforms.jitter import check_ranges
from robustlab.data.transforms.transform import Transform, integers, rectangles


class RandomAffine(Transform):
    """Rotate, shift (by fractions of pixels), scale and shear randomly about the centre; mild amounts suit digits."""

    draws = 5

    def __init__(
        self,
        degrees: float = 0.0,
        translate: tuple[float, float] = (0.0, 0.0),
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        fill: int = 0,
        interpolation: str = "bilinear",
    ) -> None:
        """Check the arguments.

        - degrees: rotations are drawn from [-degrees, degrees].
        - translate: maximum shift as a fraction of width and height.
        - scale: bounds of the magnification.
        - shear: horizontal, drawn from [-shear, shear] degrees.
        - fill: grey level.
        - interpolation: "nearest" or "bilinear".
        """
        check_ranges("RandomAffine", scale, (1.0, 1.0))
        if degrees < 0 or min(translate) < 0 or not 0 <= shear < 90 or not 0 <= fill <= 255:
            raise ConfigError(
                "RandomAffine needs degrees and translate >= 0, shear in [0, 90) and fill in 0..255; "
                f"got {degrees}, {translate}, {shear}, {fill}"
            )
        if interpolation not in ("nearest", "bilinear"):
            raise ConfigError(f"RandomAffine knows the interpolations nearest and bilinear, not {interpolation!r}")
        self.degrees, self.translate, self.scale, self.shear = degrees, tuple(translate), tuple(scale), shear
        self.fill, self.interpolation = fill, interpolation

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the images; u: rotation, shift right, shift down, scale, shear."""
        height, width = images.shape[2:]
        signed = u.to(images.device, non_blocking=True).double() * 2.0 - 1.0
        angle = signed[:, 0] * math.radians(self.degrees)
        slope = torch.tan(signed[:, 4] * math.radians(self.shear))
        zoom = self.scale[0] + (self.scale[1] - self.scale[0]) * (signed[:, 3] + 1.0) * 0.5
        shift = torch.stack([signed[:, 1] * self.translate[0] * width, signed[:, 2] * self.translate[1] * height], 1)
        cosine, sine = angle.cos(), angle.sin()
        # Output to source: the inverse of "shear, rotate, magnify, then shift".
        turn = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
        shear = torch.eye(2, dtype=torch.float64, device=images.device).repeat(len(images), 1, 1)
        shear[:, 0, 1] = slope
        linear = shear @ turn / zoom[:, None, None]
        offset = -(linear @ shift[:, :, None])
        matrix = torch.cat([linear, offset], dim=2)
        return geometry.affine(images, matrix, fill=self.fill, interpolation=self.interpolation)


class RandomResizedCrop(Transform):
    """Crop a random rectangle and resample it (bilinear, without antialiasing) to a fixed size.

    Area and ratio are drawn as in torchvision: repeatedly until the rectangle fits, and after the last attempt the
    largest centred one of an allowed ratio is used.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0),
        attempts: int = 10,
    ) -> None:
        """Check the arguments.

        - size: side of the result.
        - scale: bounds of the area as a fraction of the image.
        - ratio: bounds of width over height, log-uniform.
        """
        check_ranges("RandomResizedCrop", scale, ratio)
        if size < 1 or attempts < 1 or scale[1] > 1.0:
            raise ConfigError(
                f"RandomResizedCrop needs size and attempts >= 1 and scale <= 1, got {size}, {attempts}, {scale}"
            )
        self.size, self.scale, self.ratio = size, (scale[0], scale[1]), (ratio[0], ratio[1])
        self.draws = 2 + 2 * attempts

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the images; u: row, column, then area and ratio of each attempt."""
        height, width = images.shape[2:]
        log_ratio = (-math.log(self.ratio[1]), -math.log(self.ratio[0]))  # of height to width
        tall, wide, found = rectangles(u[:, 2:], height, width, scale=self.scale, log_ratio=log_ratio)
        last_wide = min(width, round(height * self.ratio[1]))
        last_tall = min(height, round(width / self.ratio[0]))
        tall, wide = torch.where(found, tall, last_tall), torch.where(found, wide, last_wide)
        top = torch.where(found, integers(u[:, 0], height - tall + 1), (height - last_tall) // 2)
        left = torch.where(found, integers(u[:, 1], width - wide + 1), (width - last_wide) // 2)
        box = torch.stack([left, wide, top, tall], 1).to(images.device, non_blocking=True).float()
        return _resample(images, box, self.size)


def _resample(images: Tensor, box: Tensor, size: int) -> Tensor:
    """Resample each box (left, width, top, height) bilinearly to (B, C, size, size)."""
    height, width = images.shape[2:]
    centres = (torch.arange(size, device=images.device) + 0.5) / size
    left, wide, top, tall = box.unsqueeze(2).unbind(1)
    # Positions between the outermost pixel centres of the box, so that nothing outside it is blended in.
    x = (left + wide * centres).clamp(min=left + 0.5, max=left + wide - 0.5) * (2.0 / width) - 1.0
    y = (top + tall * centres).clamp(min=top + 0.5, max=top + tall - 0.5) * (2.0 / height) - 1.0
    shape = (len(images), size, size)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=3)
    values = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return to_bytes(values.round_())


class Resize(Transform):
    """Resample to a square (bilinear with antialiasing)."""

    def __init__(self, size: int) -> None:
        """Check `size`, the side of the result."""
        if size < 1:
            raise ConfigError(f"Resize needs size >= 1, got {size}")
        self.size = size

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return (B, C, size, size) uint8; draws nothing."""
        values = F.interpolate(
            images.float(), (self.size, self.size), mode="bilinear", align_corners=False, antialias=True
        )
        return to_bytes(values.round_())


class CenterCrop(Transform):
    """Crop the central square."""

    def __init__(self, size: int) -> None:
        """Check `size`, the side of the square."""
        if size < 1:
            raise ConfigError(f"CenterCrop needs size >= 1, got {size}")
        self.size = size

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return (B, C, size, size) uint8; draws nothing. Raises ConfigError if the image is smaller."""
        height, width = images.shape[2:]
        if min(height, width) < self.size:
            raise ConfigError(f"CenterCrop(size={self.size}) is larger than the image {(height, width)}; resize first")
        top, left = (height - self.size + 1) // 2, (width - self.size + 1) // 2
        return images[:, :, top : top + self.size, left : left + self.size].contiguous()
