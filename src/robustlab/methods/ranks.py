"""Per-sample state under several processes: every rank must hold what any rank computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from robustlab.engine.runtime import Runtime


def gather_rows(index: Tensor, values: Tensor, *, most: int, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Return the rows of all ranks. index: int64 [B]. values: float [B, D]. most: no rank has more rows than that."""
    if runtime.world_size == 1:
        return index, values
    own_index = index.new_full((most,), -1)
    own_values = values.new_zeros((most, values.shape[1]))
    own_index[: len(index)], own_values[: len(index)] = index, values
    indices = [torch.empty_like(own_index) for _ in range(runtime.world_size)]
    rows = [torch.empty_like(own_values) for _ in range(runtime.world_size)]
    dist.all_gather(indices, own_index)
    dist.all_gather(rows, own_values)
    everything, gathered = torch.cat(indices), torch.cat(rows)
    return everything[everything >= 0], gathered[everything >= 0]


def gather_batch(values: Tensor, *, most: int, runtime: Runtime) -> Tensor:
    """Return the rows of all ranks in the order of the global batch: [world_size * most, D] for values [B, D].

    Row i of rank r, which is row i * world_size + r of the global batch, becomes just that row. Where a rank has fewer
    than `most` rows, zeros stand for the others. One rank gets its values as they are.
    """
    if runtime.world_size == 1:
        return values
    own = values.new_zeros((most, values.shape[1]))
    own[: len(values)] = values
    parts = [torch.empty_like(own) for _ in range(runtime.world_size)]
    dist.all_gather(parts, own)
    return torch.stack(parts, dim=1).flatten(0, 1)
