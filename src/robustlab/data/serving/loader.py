"""`Loader`: batches of a set of samples, reproducible from any step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Batch
from robustlab.data.serving.feed import Chunk, Feed, View
from robustlab.data.serving.order import Order
from robustlab.data.transforms.transform import single_thread


class Loader:
    """Batches of the samples `indices`, each with the requested views.

    The samples of a step and their augmentations are a pure function of (seed, purpose, epoch, step), independent of
    earlier batches, workers and the number of ranks. With several ranks, `batch_size` is the size of the global batch,
    of which rank r gets rows r, r + world_size, ...
    """

    def __init__(
        self,
        feed: Feed,
        indices: Tensor,
        *,
        order: Order,
        views: Sequence[View],
        labels: Tensor | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare to serve samples. Repeated occurrences of a sample in a pass are augmented independently.

        - feed: serves views of samples.
        - indices: (n,) int64 on the CPU.
        - labels: (N,) int64 on the device; None to serve no targets.

        Raises ConfigError if a step would leave a rank without samples.
        """
        self.indices = indices
        self.order = order
        self._feed = feed
        self._views = tuple(views)
        self._labels = labels
        self._rank, self._world_size = rank, world_size
        self._repeats = order.repeats or len(indices.unique()) < len(indices)
        smallest = len(order.rows(order.steps - 1))  # the last
        if order.steps and smallest < world_size:
            raise ConfigError(
                f"{order.length} samples in batches of {order.batch_size} leave a last batch of {smallest} for "
                f"{world_size} processes; change trainer.batch_size or the number of processes"
            )

    def __len__(self) -> int:
        """Return the number of steps in one pass over the samples."""
        return self.order.steps

    def epoch(self, epoch: int, *, start: int = 0, steps: int | None = None) -> Iterator[Batch]:
        """Yield the batches of steps `start` .. `steps` - 1 of an epoch.

        - steps: length of the epoch, by default one pass. A longer epoch continues with further passes, each reshuffled
          and augmented independently; a shorter one stops early.
        """
        plan = self._plan(epoch, start, len(self) if steps is None else steps)
        labels = self._labels
        for step, (index, views) in enumerate(self._feed.serve(plan, self._views), start):
            total = len(self.order.rows(step % len(self)))
            yield Batch(index, None if labels is None else labels[index], views, total)

    def _plan(self, epoch: int, start: int, stop: int) -> Iterator[Chunk]:
        """Yield chunks that cover the steps; a chunk never spans two passes, which have different keys."""
        if start >= stop or not len(self):
            return
        places = torch.arange(self.order.length)
        group = self._feed.chunk_batches(-(-min(self.order.batch_size, self.order.length) // self._world_size))
        for cycle in range(start // len(self), -(-stop // len(self))):
            first, last = max(start - cycle * len(self), 0), min(stop - cycle * len(self), len(self))
            with single_thread():
                shuffled = self.indices[self.order.permutation(epoch=epoch, cycle=cycle)]
            for begin in range(first // group * group, last, group):
                steps = range(begin, min(begin + group, last))
                batches = [self._share(shuffled, step) for step in steps]
                index = torch.cat(batches)
                yield Chunk(
                    index=index,
                    draws=torch.cat([self._share(places, step) for step in steps]) if self._repeats else index,
                    sizes=tuple(len(batch) for batch in batches),
                    skip=max(first - begin, 0),
                    view_keys=self._keys("view", epoch, cycle),
                    crop_keys=self._keys("crop", epoch, cycle),
                )

    def _share(self, values: Tensor, step: int) -> Tensor:
        """Return this rank's share, in one global batch, of a pass's values, e.g. stable indices."""
        rows = self.order.rows(step)
        return values[rows.start + self._rank : rows.stop : self._world_size]

    def _keys(self, kind: str, epoch: int, cycle: int) -> tuple[int, ...]:
        return tuple(self.order.key(kind, view, epoch=epoch, cycle=cycle) for view in range(len(self._views)))


def check_batch_size(indices: Tensor, batch_size: int, *, shuffle: bool) -> None:
    """Raise ConfigError if a loader could not serve anything."""
    if batch_size < 1:
        raise ConfigError(f"a batch needs at least 1 sample, got batch size {batch_size}")
    if shuffle and batch_size > len(indices):
        raise ConfigError(
            f"a batch of {batch_size} is larger than the {len(indices)} training samples it is drawn from; "
            "lower trainer.batch_size"
        )
