"""Compute losses of a batch that is split between processes.

Gradients and logged scalars are averaged over ranks. A loss that is a mean over rows only needs weights for the shares
(`weighted`); a loss in which rows interact is computed identically by every rank from all rows (`whole`). Either way
the gradient equals that of a single process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from robustlab.core.runtime import Runtime
    from robustlab.data.dataset import Batch


def weighted(means: Mapping[str, Tensor], batch: Batch, *, runtime: Runtime) -> dict[str, Tensor]:
    """Weight means over this rank's rows so that their average over ranks is the mean over all rows.

    If the number of rows is a multiple of the number of ranks, all weights are one and the values are unchanged.
    """
    weight = len(batch) * runtime.world_size / batch.total
    return {name: value if weight == 1 else value * weight for name, value in means.items()}


def whole(values: Tensor, total: int, *, runtime: Runtime) -> Tensor:
    """Return the rows of the global batch, (total, ...), gathered from all ranks.

    Row i of rank r becomes row i * world_size + r. Every rank must compute the same loss from the result: the gradient
    with respect to `values` is multiplied by world_size, without communication. A single rank gets `values` unchanged.

    - values: this rank's share of the rows, (B, ...).
    - total: number of rows of the global batch.
    """
    return values if runtime.world_size == 1 else _Whole.apply(values, total, runtime)  # type: ignore[no-any-return]


def whole_parts(values: Tensor, batches: Sequence[Batch], *, runtime: Runtime) -> Tensor:
    """Apply `whole` to each of several concatenated batches; return (sum of their totals, ...)."""
    if runtime.world_size == 1:
        return values
    parts = zip(values.split([len(batch) for batch in batches]), batches, strict=True)
    return torch.cat([whole(part, batch.total, runtime=runtime) for part, batch in parts])


def own_rows(batches: Sequence[Batch], *, runtime: Runtime) -> Tensor | None:
    """Return the positions of this rank's rows in the result of `whole_parts`, int64 on the CPU; None with one rank."""
    if runtime.world_size == 1:
        return None
    start, places = 0, []
    for batch in batches:
        places.append(torch.arange(start + runtime.rank, start + batch.total, runtime.world_size))
        start += batch.total
    return torch.cat(places)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, total: int, runtime: Runtime) -> Tensor:
        ctx.share = slice(runtime.rank, None, runtime.world_size)
        ctx.world_size = runtime.world_size
        padded = values.new_zeros((-(-total // runtime.world_size), *values.shape[1:]))
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in range(runtime.world_size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:total]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.share] * ctx.world_size, None, None
