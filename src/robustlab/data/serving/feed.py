"""From sample indices to views: the part that differs between the resident and the streaming path."""

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
    """A named view and its batched transforms; the view "test" has none."""

    name: str
    pipeline: Pipeline


@dataclass(frozen=True)
class Chunk:
    """Consecutive batches of one pass that are prepared together.

    index: int64 [rows] on the CPU, stable indices. draws: int64 [rows] on the CPU, what random draws of each row depend
    on: the stable index, or the place in the pass where a pass repeats samples. sizes: rows of each batch. skip: number
    of leading batches that are prepared but not served: a chunk always starts at the same step, so that a resumed epoch
    computes exactly what the uninterrupted one did. view_keys, crop_keys: random keys, one per view.
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
        """Yield index int64 [B] and, for each view, normalised float32 [B, C, H, W], batch by batch."""
        ...


@dataclass(frozen=True)
class Renderer:
    """Augments and normalises uint8 images on the device."""

    task: TaskSpec
    memory_format: torch.memory_format

    def __call__(self, images: Tensor, draws: Tensor, view: View, key: int) -> Tensor:
        """Return one view, float32 [B, C, H, W], of uint8 `images`; it depends on `key` and each sample's `draws`.

        draws: int64 [B] on the CPU. Drawing there lets the transforms sort samples without waiting for the device.
        """
        return self.normalize(self.augment(images, draws, view, key))

    def augment(self, images: Tensor, draws: Tensor, view: View, key: int) -> Tensor:
        """Return one view while its pixels are still bytes: a quarter of the memory."""
        if not view.pipeline.transforms:
            return images
        with single_thread():
            return view.pipeline(images, rng.uniform(key, draws, view.pipeline.draws))

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 images as normalised float32."""
        with single_thread():
            return normalize(images, self.task.mean, self.task.std, memory_format=self.memory_format)


class ResidentFeed:
    """Images that lie on the device as one uint8 tensor [N, C, H, W]; every loader of a split shares it."""

    def __init__(self, images: Tensor, *, renderer: Renderer, chunk: int | None = None) -> None:
        """Serve `images`; `chunk` fixes the number of batches prepared together (tests), None chooses it by size."""
        self.images = images
        self.device = images.device
        self._render = renderer
        self._chunk = chunk

    def chunk_batches(self, rows: int) -> int:
        """Return the number of batches that fit the byte budget, at most 8: small operations cost most when alone."""
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
            # Floats are made batch by batch: memory of one batch is used again, that of a chunk is asked for anew.
            for rows, *batch in list(zip(*pieces, strict=True))[chunk.skip :]:
                yield rows, tuple(self._render.normalize(view) for view in batch)
