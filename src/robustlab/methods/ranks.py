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
