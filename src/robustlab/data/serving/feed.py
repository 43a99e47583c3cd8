"""Turn sample indices into views; this part differs between resident and streaming data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.data.dataset import TaskSpec
from robustlab.data.transforms.augment import normalize
from robustlab.data.transforms.transform import Pipeline, single_thread

_CPU_CHUNK_BYTES = 4 << 20  # of one view of a chunk: larger ones are evicted from the cache before their next use
_GPU_CHUNK_BYTES = 64 << 20
_LONGEST_CHUNK = 8  # batches


@dataclass(frozen=True)
class View:
    """A named view and its batched transforms; the view "test" has none by default."""

    name: str
    pipeline: Pipeline


@dataclass(frozen=True)
class Chunk:
    """Consecutive batches of one pass that are prepared together.

    - index: stable indices, (rows,) int64 on the CPU.
    - draws: counter for each row's random draws, (rows,) int64 on the CPU: the stable index, or the position in the
      pass if samples are repeated.
    - sizes: number of rows of each batch.
    - skip: number of leading batches that are prepared but not served: chunks always start at the same steps, so that a
      resumed epoch computes exactly the same as an uninterrupted one.
    - view_keys, crop_keys: random keys, one per view.
    """

    index: Tensor
    draws: Tensor
    sizes: tuple[int, ...]
    skip: int
    view_keys: tuple[int, ...]
    crop_keys: tuple[int, ...]


class Feed(Protocol):
    """Turns a plan of chunks into (index, views) per batch, on the device."""

    device: torch.device

    def chunk_batches(self, rows: int) -> int:
        """Return how many batches of `rows` samples to prepare together."""
        ...

    def serve(self, plan: Iterable[Chunk], views: Sequence[View]) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Yield per batch the index, (B,) int64, and each view, normalised, (B, C, H, W) float32."""
        ...


@dataclass(frozen=True)
class Renderer:
    """Augments and normalises uint8 images on the device."""

    task: TaskSpec
    memory_format: torch.memory_format

    def __call__(self, images: Tensor, draws: Tensor, view: View, key: int) -> Tensor:
        """Return one view, (B, C, H, W) float32, of uint8 `images`, determined by `key` and each sample's `draws`.

        - draws: (B,) int64 on the CPU, so that transforms can sort samples without synchronising with the device.
        """
        return self.normalize(self.augment(images, draws, view, key))

    def augment(self, images: Tensor, draws: Tensor, view: View, key: int) -> Tensor:
        """Return one view as bytes, which take a quarter of the memory of floats."""
        if not view.pipeline.transforms:
            return images
        with single_thread():
            return view.pipeline(images, rng.uniform(key, draws, view.pipeline.draws))

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 images as normalised float32."""
        with single_thread():
            return normalize(images, self.task.mean, self.task.std, memory_format=self.memory_format)


class ResidentFeed:
    """Images on the device as one (N, C, H, W) uint8 tensor, shared by every loader of a split."""

    def __init__(self, images: Tensor, *, renderer: Renderer, chunk: int | None = None) -> None:
        """Serve `images`; `chunk` fixes the number of batches prepared together (for tests), None derives it."""
        self.images = images
        self.device = images.device
        self._render = renderer
        self._chunk = chunk

    def chunk_batches(self, rows: int) -> int:
        """Return the number of batches that fit the byte budget, at most 8; batching amortises small operations."""
        budget = _CPU_CHUNK_BYTES if self.device.type == "cpu" else _GPU_CHUNK_BYTES
        fitting = budget // max(1, rows * self.images[0].numel())
        return self._chunk or min(max(1, fitting), _LONGEST_CHUNK)

    def serve(self, plan: Iterable[Chunk], views: Sequence[View]) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Yield index and views per batch."""
        for chunk in plan:
            index = chunk.index.to(self.device, non_blocking=True)
            with single_thread():  # index_select copies whole images, indexing copies byte after byte
                images = self.images.index_select(0, index)
            augmented = [
                self._render.augment(images, chunk.draws, view, key)
                for view, key in zip(views, chunk.view_keys, strict=True)
            ]
            pieces = [tensor.split(chunk.sizes) for tensor in (index, *augmented)]
            # Convert to floats batch by batch: memory of a batch is reused, memory of a chunk would be reallocated.
            for rows, *batch in list(zip(*pieces, strict=True))[chunk.skip :]:
                yield rows, tuple(self._render.normalize(view) for view in batch)
