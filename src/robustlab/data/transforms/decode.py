"""Crops made by streaming workers while decoding, which bring images of any size to one size."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from robustlab.core.errors import ConfigError


class Decode(ABC):
    """Brings one decoded image to the network's input size. Picklable and stateless."""

    draws: int = 0

    @abstractmethod
    def __call__(self, image: Tensor, u: Tensor) -> Tensor:
        """Return a (C, size, size) uint8 image.

        - image: (C, h, w) uint8.
        - u: uniform random numbers, (draws,) float32.
        """


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize bilinearly with antialiasing, as in torchvision and PIL."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True, align_corners=False)[0]


def _resize_shorter(image: Tensor, size: int) -> Tensor:
    height, width = image.shape[-2:]
    if height <= width:
        return _resize(image, size, int(size * width / height))
    return _resize(image, int(size * height / width), size)


class RandomResizedCrop(Decode):
    """A window of random area and aspect ratio, resized (Szegedy et al. 2015; ten attempts as in torchvision)."""

    draws = 22

    def __init__(
        self, *, size: int, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        """Check the arguments.

        - size: side of the result.
        - scale: bounds of the crop's area as a fraction of the image's.
        - ratio: bounds of width / height.
        """
        if size < 1 or not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise ConfigError(
                f"RandomResizedCrop needs size >= 1, scale in (0, 1] and ratio > 0, each from low to "
                f"high; got {size}, {tuple(scale)}, {tuple(ratio)}"
            )
        self.size, self.scale, self.ratio = size, tuple(scale), tuple(ratio)

    def __call__(self, image: Tensor, u: Tensor) -> Tensor:
        """Return (C, size, size) uint8; u[:20] are ten pairs of area and ratio, u[20:] the position."""
        top, left, height, width = self._window(image.shape[-2], image.shape[-1], u.tolist())
        return _resize(image[:, top : top + height, left : left + width], self.size, self.size)

    def _window(self, height: int, width: int, u: list[float]) -> tuple[int, int, int, int]:
        low, high = (math.log(value) for value in self.ratio)
        for attempt in range(10):
            area = height * width * (self.scale[0] + u[2 * attempt] * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + u[2 * attempt + 1] * (high - low))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(u[20] * (height - h + 1)), int(u[21] * (width - w + 1)), h, w
        w = min(width, round(height * self.ratio[1]))  # none fits: largest centred one of an allowed ratio
        h = min(height, round(width / self.ratio[0]))
        return (height - h) // 2, (width - w) // 2, h, w


class ResizeRandomCrop(Decode):
    """Resize the shorter side, then crop at a random position."""

    def __init__(self, *, resize: int | Sequence[int], size: int) -> None:
        """Check the arguments.

        - resize: length of the shorter side, or several equally likely ones.
        - size: side of the crop, at most `resize`.
        """
        self.sides = (resize,) if isinstance(resize, int) else tuple(resize)
        self.size, self.draws = size, 2 if len(self.sides) == 1 else 3
        if not self.sides or not 1 <= size <= min(self.sides):
            raise ConfigError(f"ResizeRandomCrop needs 1 <= size <= resize, got size={size}, resize={resize}")

    def __call__(self, image: Tensor, u: Tensor) -> Tensor:
        """Return (C, size, size) uint8; u chooses row, column and, if there are several, the shorter side."""
        row, column, *which = u.tolist()
        image = _resize_shorter(image, self.sides[int(which[0] * len(self.sides)) if which else 0])
        top, left = (
            int(draw * (side - self.size + 1)) for draw, side in zip((row, column), image.shape[-2:], strict=True)
        )
        return image[:, top : top + self.size, left : left + self.size]


class ResizeCenterCrop(Decode):
    """Resize the shorter side, then crop the centre: the usual evaluation crop."""

    def __init__(self, *, resize: int, size: int, stretch: bool = False) -> None:
        """Check the arguments.

        - resize: length of the shorter side, or of both sides with `stretch`.
        - size: side of the crop, at most `resize`.
        """
        if not 1 <= size <= resize:
            raise ConfigError(f"ResizeCenterCrop needs 1 <= size <= resize, got size={size}, resize={resize}")
        self.resize, self.size, self.stretch = resize, size, stretch

    def __call__(self, image: Tensor, u: Tensor) -> Tensor:
        """Return uint8 [C, size, size]."""
        resized = _resize(image, self.resize, self.resize) if self.stretch else _resize_shorter(image, self.resize)
        top, left = (round((side - self.size) / 2) for side in resized.shape[-2:])
        return resized[:, top : top + self.size, left : left + self.size].contiguous()


class CenterCropResize(Decode):
    """Crop the central square, then resize it: the evaluation crop for faces (178 of 178x218, then 224)."""

    def __init__(self, *, crop: int, size: int) -> None:
        """Check the arguments.

        - crop: side of the square, at most the image's shorter side.
        - size: side of the result.
        """
        if min(crop, size) < 1:
            raise ConfigError(f"CenterCropResize needs crop >= 1 and size >= 1, got crop={crop}, size={size}")
        self.crop, self.size = crop, size

    def __call__(self, image: Tensor, u: Tensor) -> Tensor:
        """Return uint8 [C, size, size]."""
        side = min(self.crop, *image.shape[-2:])
        top, left = (round((length - side) / 2) for length in image.shape[-2:])
        return _resize(image[:, top : top + side, left : left + side], self.size, self.size).contiguous()
