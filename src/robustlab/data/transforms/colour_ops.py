"""Batched colour operations on bytes, with one magnitude per sample.

Each takes uint8 images, (B, C, H, W) with C = 1 or 3, and float32 magnitudes, (B,) on the same device, and returns
uint8 images. The results equal `torchvision.transforms.v2.functional` on uint8 tensors for each sample, except for one
grey level if floats are rounded in a different order. Nothing synchronises with a device.

Two facts about torch on a CPU shape the code: converting floats to bytes is four times faster via int16, and comparing
bytes is ten times slower than arithmetic on them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Operation = Callable[[Tensor, Tensor], Tensor]

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision has it


def to_bytes(values: Tensor) -> Tensor:
    """Return float values (modified in place) clamped to 0..255 and truncated to uint8."""
    return values.clamp_(0, 255).to(torch.int16).to(torch.uint8)


def _column(magnitude: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1)."""
    return magnitude.view(-1, 1, 1, 1)


def _luma(images: Tensor) -> Tensor:
    """Return the integer grey levels, (B, 1, H, W) float32."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.float().unbind(1)
    grey = red.mul_(_LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return grey.floor_().unsqueeze(1)


def identity(images: Tensor, magnitude: Tensor) -> Tensor:
    """Return the images."""
    return images


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black: factor 0 is black, 1 the image, above 1 brighter."""
    return to_bytes(images.float().mul_(_column(factor)))


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image: factor 0 is grey, 1 the image. Single-channel images are unchanged."""
    if images.shape[1] == 1:
        return images
    factor = _column(factor)
    return to_bytes(images.float().mul_(factor).add_(_luma(images).mul_(1.0 - factor)))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean grey level: factor 0 is uniform grey, 1 the image."""
    factor = _column(factor)
    mean = _luma(images).mean(dim=(1, 2, 3), keepdim=True)
    return to_bytes(images.float().mul_(factor).add_(mean.mul_(1.0 - factor)))


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the 3x3 smoothing [1 1 1; 1 5 1; 1 1 1] / 13: factor 0 is smooth, 1 the image; borders stay."""
    height, width = images.shape[2:]
    if height <= 2 or width <= 2:
        return images
    pixels = images.to(torch.int16)
    # Sums of integers are exact, and no multiple of 1/13 lies halfway between two of them.
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    inner = pixels[:, :, 1:-1, 1:-1]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner
    smooth = total.float().mul_(1.0 / 13.0).round_()
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = to_bytes(smooth.lerp_(inner.float(), _column(factor)))
    return result


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper `bits` (an integer in 0..8) of each byte."""
    mask = 256 - torch.bitwise_left_shift(torch.ones_like(bits, dtype=torch.int32), 8 - bits.to(torch.int32))
    return images & _column(mask.to(torch.uint8))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels at or above the threshold (0..256; 256 inverts none)."""
    below = _column((threshold.ceil() - 1).to(torch.int16))
    chosen = (below - images.to(torch.int16)) >> 15  # all bits set where pixel >= threshold
    return images ^ chosen.to(torch.uint8)


def invert(images: Tensor, magnitude: Tensor) -> Tensor:
    """Return 255 - pixel."""
    return images ^ 255


def autocontrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Stretch each channel so that its darkest pixel is 0 and its brightest 255; a constant channel is unchanged."""
    low = images.amin(dim=(2, 3), keepdim=True).float()
    high = images.amax(dim=(2, 3), keepdim=True).float()
    plain = high == low
    scale = torch.where(plain, 1.0, (high - low) * (1.0 / 255.0))
    return to_bytes(images.float().sub_(torch.where(plain, 0.0, low)).div_(scale))


def equalize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Equalise each channel's histogram with Pillow's table: (cumulative count + step // 2) // step."""
    count, channels, height, width = images.shape
    planes, size = count * channels, height * width
    pixels = images.reshape(planes, size)
    darker = darker_by_sorting(pixels) if pixels.is_cuda else darker_by_counting(pixels)
    # all but the brightest pixels, since none is brighter than these
    step = (darker.gather(1, pixels.amax(dim=1, keepdim=True).long()) // 255).float()
    # Whole numbers below 2**24: the float quotient has the right floor.
    table = (darker.float().add_((step / 2).floor_()) / step.clamp(min=1)).floor_()
    levels = torch.arange(256, dtype=torch.float32, device=images.device)
    table = to_bytes(torch.where(step == 0, levels, table))
    return table.gather(1, pixels.long()).view(images.shape)


def darker_by_counting(pixels: Tensor) -> Tensor:
    """Return how many pixels of each row lie below each level, (P, 256) int32.

    - pixels: (P, size) uint8 on the CPU.
    """
    planes = len(pixels)
    offsets = torch.arange(0, planes * 256, 256, dtype=torch.int32)
    flat = (pixels.to(torch.int32) + offsets[:, None]).view(-1)
    histogram = torch.bincount(flat, minlength=planes * 256).view(planes, 256).to(torch.int32)
    return histogram.cumsum(1, dtype=torch.int32) - histogram


def darker_by_sorting(pixels: Tensor) -> Tensor:
    """Return the same as `darker_by_counting`, deterministically and without synchronising with a CUDA device."""
    levels = torch.arange(256, dtype=torch.uint8, device=pixels.device).expand(len(pixels), 256).contiguous()
    return torch.searchsorted(pixels.sort(dim=1).values, levels, out_int32=True)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Shift the hue by a fraction of a turn in [-0.5, 0.5]. Single-channel images are unchanged."""
    if images.shape[1] == 1:
        return images
    pixels = images.float()
    red, green, blue = pixels.unbind(1)
    value, low = pixels.amax(1), pixels.amin(1)
    chroma = value - low
    divisor = torch.where(chroma == 0, 1.0, chroma)
    angle = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2.0, (red - green) / divisor + 4.0),
    )
    angle = angle + 6.0 * turn.view(-1, 1, 1)
    # HSV to RGB: channel n is value - chroma * clamp(min(k, 4 - k), 0, 1) with k = (n + angle) mod 6
    k = angle[:, None] + torch.arange(5.0, 0.0, -2.0, device=images.device).view(1, 3, 1, 1)
    k -= (k * (1.0 / 6.0)).floor_().mul_(6.0)  # remainder is ten times slower
    share = torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)
    return to_bytes((value[:, None] - chroma[:, None] * share).add_(1e-3))  # a level may come out too low
