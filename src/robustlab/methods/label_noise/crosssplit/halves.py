"""Split the training set into two halves, and serve the batches of each network's turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Batch
from robustlab.methods.label_noise.crosssplit.crosssplit_settings import (
    JsdSettings,
    Settings,
    SplitSettings,
    UnlabelledSettings,
)
from robustlab.methods.label_noise.crosssplit.timeline import warmup_data

if TYPE_CHECKING:
    from robustlab.core.runtime import Runtime
    from robustlab.data.run_data import Data
    from robustlab.data.serving.loader import Loader

AS_IS_BATCH = 100
"""Batch size of the official code's extrema pass; it only matters if BatchNorm stays in train mode."""


def split_halves(indices: Tensor, labels: Tensor, *, seed: int, settings: SplitSettings) -> tuple[Tensor, Tensor]:
    """Return D1 and D2, random halves of `indices` with floor(N/2) and N - floor(N/2) samples, sorted, int64, on CPU.

    They depend on the seed but not on the noise. With `stratify` each class is halved too, so they also depend on
    `labels`. Without `disjoint` both equal `indices`.

    - indices, labels: (N,) int64.
    """
    if not settings.disjoint:
        return indices, indices
    key = rng.fold(seed if settings.seed is None else settings.seed, "halves")
    order = rng.permutation(key, len(indices))
    if settings.stratify:
        order = order[labels[order].argsort(stable=True)]
        return indices[order[1::2]].sort().values, indices[order[::2]].sort().values
    half = len(indices) // 2
    return indices[order[:half]].sort().values, indices[order[half:]].sort().values


@dataclass(frozen=True)
class TurnItem:
    """The data of one step.

    - turn: number (1 or 2) of the network to train.
    - labelled: weak, weak, strong, strong views of its own half (one weak view in warm-up).
    - unlabelled: the same four views of the other half, without targets; None in warm-up.
    - step, steps: index of the step within the turn, and the turn's length.
    """

    turn: int
    step: int
    steps: int
    labelled: Batch
    unlabelled: Batch | None = None

    def __len__(self) -> int:
        """Return the number of labelled samples."""
        return len(self.labelled)


class Turn:
    """The loaders of one network's turn. They give no access to the labels of the other half."""

    def __init__(
        self,
        number: int,
        *,
        data: Data,
        own: Tensor,
        other: Tensor,
        batch_size: int,
        settings: Settings,
        runtime: Runtime,
    ) -> None:
        """Make the loaders.

        - own, other: indices of the labelled and the unlabelled half.

        Raises `ConfigError` if a half is smaller than a batch.
        """
        self.number = number
        size = settings.labelled.batch_size or batch_size
        four = ("weak", "weak", "strong", "strong")
        everything = data.train_indices
        warmup, jsd = settings.warmup, settings.jsd
        self.warmup_data = warmup_data(warmup.data, labels=len(own))
        self.warmup: Loader = data.loader(
            everything if self.warmup_data == "full" else own,
            batch_size=warmup.batch_size or min(2 * size, len(own)),
            views=("weak",),
            purpose=f"warmup{number}",
        )
        share = slice(runtime.rank, None, runtime.world_size)  # of the passes without training
        purpose = f"labelled{number}"
        self.labelled: Loader = data.loader(
            own, batch_size=size, views=four, purpose=purpose, drop_last=settings.labelled.drop_last
        )
        # Views depend only on purpose, view number, epoch and sample: these are the same views as in the labelled
        # batches, in an order suited to a pass over the whole half.
        self.corrected: Loader = data.loader(
            own[share],
            batch_size=settings.perf.batch_size,
            views=four[:2],
            purpose=purpose,
            labelled=False,
            shuffle=False,
            shard=False,
        )
        self.extrema = self._extrema(data, everything if jsd.extrema_scope == "full" else own, share, jsd)
        self.unlabelled = self._unlabelled(data, other, four, size, settings.unlabelled)
        if len(self.labelled) == 0 or len(self.warmup) == 0:
            raise ConfigError(f"half {number} has {len(own)} samples, fewer than one batch; lower trainer.batch_size")
        self.steps = settings.steps_per_epoch or len(self.labelled)

    def _extrema(self, data: Data, indices: Tensor, share: slice, settings: JsdSettings) -> Loader:
        as_is = settings.extrema_bn == "as_is"
        # All see all in train mode: statistics become what one process has, and synchronised ones wait for nobody.
        return data.loader(
            indices if as_is else indices[share],
            batch_size=AS_IS_BATCH if as_is else settings.batch_size,
            views=("test",),
            purpose=f"extrema{self.number}",
            shuffle=False,
            shard=False,
        )

    def _unlabelled(
        self, data: Data, other: Tensor, views: tuple[str, ...], labelled_size: int, settings: UnlabelledSettings
    ) -> Loader | None:
        if settings.batch_ratio == 0:
            return None
        size = int(labelled_size * settings.batch_ratio)
        if size < 2 or len(other) < 2 or (settings.drop_last and size > len(other)):
            raise ConfigError(
                f"method.unlabelled.batch_ratio={settings.batch_ratio} makes unlabelled batches of {size} from "
                f"{len(other)} samples; choose a ratio that gives at least 2 and at most that many, or 0"
            )
        return data.loader(
            other,
            batch_size=size,
            views=views,
            purpose=f"unlabelled{self.number}",
            labelled=False,
            drop_last=settings.drop_last,
        )

    def warmup_items(self, epoch: int, *, start: int) -> Iterator[TurnItem]:
        """Yield the warm-up steps of an epoch from step `start` of the turn."""
        steps = len(self.warmup)
        for step, batch in enumerate(self.warmup.epoch(epoch, start=start), start):
            yield TurnItem(self.number, step, steps, batch)

    def items(self, epoch: int, *, start: int) -> Iterator[TurnItem]:
        """Yield the steps of an epoch from step `start` of the turn, cycling through the unlabelled half."""
        batches = self.labelled.epoch(epoch, start=start, steps=self.steps)
        if self.unlabelled is None:
            for step, batch in enumerate(batches, start):
                yield TurnItem(self.number, step, self.steps, batch)
            return
        others = self.unlabelled.epoch(epoch, start=start, steps=self.steps)
        for step, (batch, other) in enumerate(zip(batches, others, strict=True), start):
            yield TurnItem(self.number, step, self.steps, batch, other)
