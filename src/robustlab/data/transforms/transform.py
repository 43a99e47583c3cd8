"""The contract of batched augmentations, and the byte operations that they share.

A transform is a pure function of uint8 images, (B, C, H, W), and uniform random numbers, (B, draws) float32. Row i of
the result depends only on row i of both, so that chunks, batch size, workers and ranks do not affect it. There are no
loops over samples. `u` may stay on the CPU while the images are on a CUDA device, so that no transform synchronises.

Bytes are moved in rows instead of one by one (crops: `index_select` over an overlapping strided view; choices: words
of eight pixels), which on a CPU is about five times faster than gathering pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError


class Transform(ABC):
    """A batched per-sample augmentation. `draws` is the number of uniform random numbers it needs per sample."""

    draws: int = 0

    @abstractmethod
    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the augmented images, (B, C, H', W') uint8.

        - images: (B, C, H, W) uint8, not modified.
        - u: (B, draws) float32 in [0, 1), on the images' device or the CPU.
        """


class Pipeline(Transform):
    """Applies transforms in sequence, each with its own slice of the random numbers, on one CPU thread."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        """Chain `transforms`; an empty pipeline returns the images unchanged."""
        self.transforms = tuple(transforms)
        self.draws = sum(transform.draws for transform in self.transforms)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the images after all transforms. Raises ConfigError if `u` is not of shape (B, draws)."""
        if u.shape != (len(images), self.draws):
            raise ConfigError(
                f"Pipeline needs uniforms of shape {(len(images), self.draws)}, got {tuple(u.shape)}; "
                "draw them with rng.uniform(key, index, pipeline.draws)"
            )
        start = 0
        with single_thread():
            for transform in self.transforms:
                images = transform(images, u[:, start : start + transform.draws])
                start += transform.draws
        return images


@contextmanager
def single_thread() -> Iterator[None]:
    """Run the block's torch CPU work on the calling thread only.

    The many small kernels of an augmentation gain little from a second thread, and with another busy process on the
    machine they would spend their time waiting at barriers. Entering and leaving costs about a microsecond.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def integers(u: Tensor, count: int | Tensor) -> Tensor:
    """Return int64 in 0 .. count-1, uniform if u is uniform in [0, 1). `count`: one number, or int64 of u's shape."""
    return (u * count).long().clamp(max=count - 1)  # a u just below 1 can round up to count


def cut(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Crop a window from each image, with upper left corner (top[i], left[i]): (B, C, height, width) uint8.

    - images: (B, C, H, W) uint8, contiguous.
    - top, left: (B,) int64; the windows must lie inside the images (not checked).
    """
    count, channels, full_height, full_width = images.shape
    if count == 0:
        return images.new_empty((0, channels, height, width))
    plane = full_height * full_width
    starts = torch.arange(count, device=top.device) * (channels * plane) + top * full_width + left
    # Every possible window is a row of an overlapping view; index_select copies whole pixel rows.
    windows = (count - 1) * channels * plane + (full_height - height) * full_width + full_width - width + 1
    view = images.as_strided(
        (windows, channels, height, width), (1, plane, full_width, 1), storage_offset=images.storage_offset()
    )
    return view.index_select(0, starts.to(images.device, non_blocking=True))


def pad(images: Tensor, vertical: int, horizontal: int, fill: int) -> Tensor:
    """Pad the images with `vertical` rows above and below and `horizontal` columns left and right, set to `fill`."""
    count, channels, height, width = images.shape
    padded = images.new_full((count, channels, height + 2 * vertical, width + 2 * horizontal), fill)
    padded[:, :, vertical : vertical + height, horizontal : horizontal + width] = images
    return padded


def reflect(images: Tensor, padding: int) -> Tensor:
    """Pad the images by `padding` pixels on all sides by reflection, without repeating the edge."""
    for axis in (2, 3):
        last = images.shape[axis] - 1
        places = torch.arange(-padding, last + padding + 1, device=images.device).abs()
        images = images.index_select(axis, last - (last - places).abs())
    return images


def choose(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Return yes[i] where chosen[i], else no[i].

    - chosen: (B,) bool.
    - yes, no: (B, C, H, W) uint8.
    """
    shape = (-1, 1, 1, 1)
    yes, no = yes.contiguous(), no.contiguous()
    for word in (torch.int64, torch.int32, torch.int16):
        size = word.itemsize
        if yes.shape[3] % size == 0 and yes.storage_offset() % size == 0 and no.storage_offset() % size == 0:
            # torch.where is not vectorised for bytes: eight pixels at a time are five times faster
            return torch.where(chosen.view(shape), yes.view(word), no.view(word)).view(torch.uint8)
    return torch.where(chosen.view(shape), yes, no)


def rectangles(
    u: Tensor, height: int, width: int, *, scale: tuple[float, float], log_ratio: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each sample's first rectangle that fits into the image.

    Returns height and width, (B,) int64, and whether any attempt fitted, (B,) bool (otherwise 1 by 1).

    - u: uniform random numbers, (B, 2 * attempts) float32, areas then ratios.
    - scale: bounds of the area as a fraction of the image.
    - log_ratio: bounds of ln(height / width).
    """
    attempts = u.shape[1] // 2
    area = (scale[0] + (scale[1] - scale[0]) * u[:, :attempts]) * (height * width)
    ratio = torch.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * u[:, attempts:])
    tall, wide = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    found = fits.gather(1, first)[:, 0]
    return (
        torch.where(found, tall.gather(1, first)[:, 0], 1),
        torch.where(found, wide.gather(1, first)[:, 0], 1),
        found,
    )
