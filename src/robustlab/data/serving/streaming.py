"""The streaming path: worker processes decode and crop, the device does the rest.

Workers are stateless: each request contains rows and random keys, so an epoch can start at any step and the number of
workers does not matter. They ignore the signals that SLURM and terminals send to the whole process group, because the
main process still needs them to finish the step before it saves.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustlab.core import rng
from robustlab.core.errors import DataError, ResourceError
from robustlab.data.dataset import LazyImages
from robustlab.data.serving import workers as worker_processes
from robustlab.data.serving.feed import Chunk, Renderer, View
from robustlab.data.transforms.decode import Decode

_POLL_SECONDS = 1.0


class TensorImages:
    """Images in memory, served one by one like files, for streaming a data set that is a tensor."""

    def __init__(self, images: Tensor) -> None:
        """Serve `images`, (N, C, H, W) uint8."""
        self._images = images

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def decode(self, index: int) -> Tensor:
        """Return image `index`, (C, H, W) uint8."""
        return self._images[index]


def decode_all(images: LazyImages, shape: tuple[int, int, int]) -> Tensor:
    """Return all images, (N, C, H, W) uint8. Raises DataError that names the first one with a different shape."""
    decoded = torch.empty((len(images), *shape), dtype=torch.uint8)
    for index in range(len(images)):
        decoded[index] = _checked(images.decode(index), index, shape)
    return decoded


def _checked(image: Tensor, index: int, shape: tuple[int, int, int]) -> Tensor:
    if tuple(image.shape) != tuple(shape) or image.dtype != torch.uint8:
        raise DataError(
            f"image {index} is {image.dtype} {tuple(image.shape)}, but the data set announces uint8 "
            f"{tuple(shape)}; fix the image, or set dataset.storage=streaming with a dataset.decode that "
            f"crops to one size"
        )
    return image


@dataclass(frozen=True)
class Request:
    """One batch for a worker: its rows and, for each different crop, the entry of `decode` and a random key.

    - draws: counter of each row for the random crop, in addition to the key.
    """

    index: tuple[int, ...]
    draws: tuple[int, ...]
    crops: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Failure:
    """Why a batch could not be made: a message for the user, and the traceback."""

    message: str
    details: str


class BatchDecoder(Dataset[list[Tensor] | Failure]):
    """The task of a worker: decode each row of a request once, and crop it as often as requested."""

    def __init__(self, images: LazyImages, decode: Mapping[str, Decode], shape: tuple[int, int, int]) -> None:
        """Keep the images, crops and `shape`, (C, H, W), of every crop or, without `decode`, of every image."""
        self._images, self._decode, self._shape = images, dict(decode), shape

    def __getitem__(self, request: Request) -> list[Tensor] | Failure:
        """Return (B, C, H, W) uint8 per crop, or the failure of the first row that cannot be decoded."""
        draws = torch.tensor(request.draws)
        crops = [(self._decode.get(name), key) for name, key in request.crops]
        uniforms = [None if crop is None else rng.uniform(key, draws, crop.draws) for crop, key in crops]
        stacks = [torch.empty((len(draws), *self._shape), dtype=torch.uint8) for _ in crops]
        for place, row in enumerate(request.index):
            try:
                image = self._images.decode(row)
                for (crop, _), u, stack in zip(crops, uniforms, stacks, strict=True):
                    cropped = image if crop is None or u is None else crop(image, u[place])
                    stack[place] = _checked(cropped, row, self._shape)
            except DataError as error:
                return Failure(str(error), traceback.format_exc())
            except Exception as error:  # decoders may raise anything for a broken file
                reason = f"{type(error).__name__}: {error}"
                return Failure(f"sample {row} cannot be decoded ({reason}); fix the file", traceback.format_exc())
        return stacks


class StreamingFeed:
    """Serves images that are decoded on demand."""

    def __init__(
        self,
        images: LazyImages,
        *,
        renderer: Renderer,
        device: torch.device,
        decode: Mapping[str, Decode],
        workers: int,
        timeout: float = 60.0,
    ) -> None:
        """Store the settings; workers start with each epoch.

        - decode: crops "train" and "eval", or empty.
        - workers: processes per epoch; 0 decodes in this process.
        - timeout: seconds after which a worker without a batch counts as hanging.
        """
        self.device = device
        self._decode, self._workers, self._timeout = dict(decode), workers, timeout
        self._render = renderer
        self._decoder = BatchDecoder(images, decode, renderer.task.image_shape)

    def chunk_batches(self, rows: int) -> int:
        """Return 1: a worker prepares whole batches."""
        return 1

    def serve(self, plan: Iterable[Chunk], views: Sequence[View]) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Yield index and views per batch. Raises DataError for a bad image, ResourceError for a lost worker."""
        pending: deque[tuple[Chunk, tuple[tuple[str, int], ...], Request]] = deque()

        def requests() -> Iterator[Request]:
            for chunk in plan:
                crops = tuple(self._crop(view, key) for view, key in zip(views, chunk.crop_keys, strict=True))
                index = tuple(chunk.index.tolist())
                draws = index if chunk.draws is chunk.index else tuple(chunk.draws.tolist())
                request = Request(index, draws, tuple(dict.fromkeys(crops)))
                pending.append((chunk, crops, request))
                yield request

        for stacks in self._decoded(requests(), pending):
            chunk, crops, request = pending.popleft()
            if isinstance(stacks, Failure):
                raise DataError(stacks.message) from RuntimeError(stacks.details)
            index = chunk.index.to(self.device, non_blocking=True)
            images = {
                crop: stack.to(self.device, non_blocking=True)
                for crop, stack in zip(request.crops, stacks, strict=True)
            }
            yield (
                index,
                tuple(
                    self._render(images[crop], chunk.draws, view, key)
                    for crop, view, key in zip(crops, views, chunk.view_keys, strict=True)
                ),
            )

    def _crop(self, view: View, key: int) -> tuple[str, int]:
        """Return the crop of a view; views with deterministic crops share them."""
        name = "eval" if view.name == "test" else "train"
        crop = self._decode.get(name)
        if crop is None:
            return "", 0
        return name, key if crop.draws else 0

    def _decoded(self, requests: Iterator[Request], pending: deque) -> Iterator[list[Tensor] | Failure]:
        if not self._workers:
            yield from map(self._decoder.__getitem__, requests)
            return
        iterator = worker_processes.start(
            DataLoader(
                self._decoder,
                batch_size=None,
                sampler=requests,
                num_workers=self._workers,
                pin_memory=self.device.type == "cuda",
                timeout=_POLL_SECONDS,
                worker_init_fn=worker_processes.ignore_signals,
                generator=torch.Generator(),  # the global one must not advance
            )
        )
        try:
            while True:
                received = self._receive(iterator, pending)
                if received is None:
                    return
                yield received
        finally:
            worker_processes.forget(iterator)

    def _receive(self, iterator: Any, pending: deque) -> list[Tensor] | Failure | None:
        """Return the next batch, None after the last. Raises ResourceError if workers have died or hang."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return next(iterator)
            except StopIteration:
                return None
            except (RuntimeError, OSError, EOFError) as error:  # the last two: a worker died while sending a batch
                waiting = str(error).startswith("DataLoader timed out")
                if type(error) is RuntimeError and not waiting and "DataLoader worker" not in str(error):
                    raise
                if waiting and time.monotonic() < deadline:
                    continue
                for worker in iterator._workers:
                    worker.kill()  # they ignore SIGTERM
                reason = _hanging(self._timeout) if waiting else _died(error)
                where = f"samples {_shortened(pending[0][0].index)} from {_worker(iterator)}" if pending else "the end"
                raise ResourceError(f"streaming stopped while waiting for {where}: {reason}") from error


def _shortened(index: Tensor) -> str:
    return ", ".join([*map(str, index[:5].tolist()), *(["..."] if len(index) > 5 else [])])


def _worker(iterator: Any) -> str:
    """Describe the worker of the next batch, with its process id, which may appear in the system's log."""
    number = iterator._task_info[iterator._rcvd_idx][0]
    return f"worker {number} (process {iterator._workers[number].pid})"


def _hanging(timeout: float) -> str:
    return f"no data for {timeout:g} s; does a file system hang, or is /dev/shm full (df -h /dev/shm)?"


def _died(error: Exception) -> str:
    cause = (str(error) or type(error).__name__).splitlines()[0]
    return f"a worker died ({cause}); often memory or /dev/shm is full, so lower dataset.workers or the batch size"
