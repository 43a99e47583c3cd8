"""A batch that several processes share: what each holds of it, and what the loss of the whole is made of.

Gradients are averaged over ranks, and so are logged scalars. A loss that is a mean over rows needs nothing but the
weight of each share (`weighted`); one in which the rows of a batch meet is computed by every rank alike from the rows
of all (`whole`). Either way the gradient is the one that a single process has from the whole batch.
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
    """Return means over this rank's rows times its part of them, so that their mean over ranks is that over all rows.

    Where the rows of a batch are a multiple of the ranks, that part is one for all, and the values stay as they are.
    """
    weight = len(batch) * runtime.world_size / batch.total
    return {name: value if weight == 1 else value * weight for name, value in means.items()}


def whole(values: Tensor, total: int, *, runtime: Runtime) -> Tensor:
    """Return the rows of the global batch, [total, ...], from this rank's share of them, [B, ...].

    Row i of rank r is row i * world_size + r. Every rank must compute the same loss from the result: the gradient comes
    back to the share times world_size, without communication. One rank gets its values as they are.
    """
    return values if runtime.world_size == 1 else _Whole.apply(values, total, runtime)  # type: ignore[no-any-return]


def whole_parts(values: Tensor, batches: Sequence[Batch], *, runtime: Runtime) -> Tensor:
    """Return `whole` of the rows of several batches that lie one after another, [sum of their totals, ...]."""
    if runtime.world_size == 1:
        return values
    parts = zip(values.split([len(batch) for batch in batches]), batches, strict=True)
    return torch.cat([whole(part, batch.total, runtime=runtime) for part, batch in parts])


def own_rows(batches: Sequence[Batch], *, runtime: Runtime) -> Tensor | None:
    """Return where this rank's rows lie in what `whole_parts` returns, int64 on the CPU; None with one rank: all."""
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
