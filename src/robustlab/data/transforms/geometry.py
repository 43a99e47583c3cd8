"""Batched geometric operations on bytes, with one matrix or magnitude per sample.

Images are (B, C, H, W) uint8, magnitudes (B,) on the same device, results new uint8 images of the same size. `fill` is
the grey level of uncovered areas. With nearest interpolation the results equal `torchvision.transforms.v2.functional`
for each sample (if a source position lies exactly between two pixels, either may be used); with bilinear interpolation
they do too, except at the edge of the uncovered area, which torchvision blends with `fill` twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.data.transforms.colour_ops import to_bytes
from robustlab.data.transforms.transform import cut, pad


def affine(images: Tensor, matrix: Tensor, *, fill: int, interpolation: str = "nearest") -> Tensor:
    """Return images whose pixel at (x, y) is the source's at matrix @ (x, y, 1), in pixels from the centre.

    - matrix: output to source, (B, 2, 3) float.
    - interpolation: "nearest" or "bilinear".
    """
    count, channels, height, width = images.shape
    grid = _sources(matrix.float(), height, width)
    if interpolation == "bilinear":
        centred = images.float() - fill  # uncovered areas are zero, and interpolation is linear
        values = F.grid_sample(centred, grid.permute(0, 2, 3, 1), padding_mode="zeros", align_corners=False)
        return to_bytes(values.add_(fill).round_())
    # A one-pixel border of `fill` catches every source position outside the image.
    source_x = grid[:, 0].add(1.0).mul_(0.5 * width).sub_(0.5).round_().clamp_(-1, width)
    source_y = grid[:, 1].add(1.0).mul_(0.5 * height).sub_(0.5).round_().clamp_(-1, height)
    place = source_y.mul_(width + 2).add_(source_x).add_(width + 3).long()
    bordered = pad(images, 1, 1, fill).view(count, channels, -1)
    index = place.view(count, 1, -1).expand(count, channels, height * width)
    return bordered.gather(2, index).view(images.shape)


def _sources(matrix: Tensor, height: int, width: int) -> Tensor:
    """Return each output pixel's position in the source, (B, 2, H, W), x then y, -1 and 1 at the outer edges."""
    x = torch.arange(width, device=matrix.device) - (width - 1) * 0.5
    y = torch.arange(height, device=matrix.device) - (height - 1) * 0.5
    across = torch.stack([matrix[:, 0] / (0.5 * width), matrix[:, 1] / (0.5 * height)], dim=1)
    columns = across[:, :, 0:1] * x
    rows = across[:, :, 1:2] * y + across[:, :, 2:3]
    return rows[:, :, :, None] + columns[:, :, None, :]


def _matrices(count: int, device: torch.device) -> Tensor:
    """Return identity matrices, (count, 2, 3) float64."""
    return torch.eye(2, 3, dtype=torch.float64, device=device).repeat(count, 1, 1)


def rotation(degrees: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices [B, 2, 3] that turn anti-clockwise about the centre."""
    angle = torch.deg2rad(degrees.double())
    matrix = _matrices(len(degrees), degrees.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0] = angle.sin()
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    return matrix


def slope_x(slope: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices [B, 2, 3] that shift each row to the left by slope times its distance from the upper edge."""
    matrix = _matrices(len(slope), slope.device)
    matrix[:, 0, 1] = slope
    matrix[:, 0, 2] = slope.double() * (height * 0.5)
    return matrix


def slope_y(slope: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices [B, 2, 3] that shift each column upwards by slope times its distance from the left edge."""
    matrix = _matrices(len(slope), slope.device)
    matrix[:, 1, 0] = slope
    matrix[:, 1, 2] = slope.double() * (width * 0.5)
    return matrix


def shift_x(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices [B, 2, 3] that shift to the right by fractions of pixels."""
    matrix = _matrices(len(pixels), pixels.device)
    matrix[:, 0, 2] = -pixels
    return matrix


def shift_y(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices [B, 2, 3] that shift downwards by fractions of pixels."""
    matrix = _matrices(len(pixels), pixels.device)
    matrix[:, 1, 2] = -pixels
    return matrix


def _room(shift: Tensor, size: int) -> int:
    """Return the largest shift, at most `size`; return `size` if finding out would synchronise with a device."""
    return size if shift.is_cuda else min(size, int(shift.abs().max()))


def translate_x(images: Tensor, pixels: Tensor, *, fill: int) -> Tensor:
    """Shift to the right by a number of pixels, truncated to a whole one as torchvision does."""
    height, width = images.shape[2:]
    room = _room(pixels, width)
    left = room - pixels.long().clamp_(-room, room)
    return cut(pad(images, 0, room, fill), torch.zeros_like(left), left, height, width)


def translate_y(images: Tensor, pixels: Tensor, *, fill: int) -> Tensor:
    """Shift downwards by a number of pixels, truncated to a whole one as torchvision does."""
    height, width = images.shape[2:]
    room = _room(pixels, height)
    top = room - pixels.long().clamp_(-room, room)
    return cut(pad(images, room, 0, fill), top, torch.zeros_like(top), height, width)
