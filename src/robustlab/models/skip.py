"""The identity skip of a residual block whose two sides may have lost different channels to pruning."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Selector(nn.Module):
    """Adds a skip to a block's output; each side keeps the channels that are alive there.

    In matrix form out + S x, where S is 0/1 and starts as the identity: removing a channel of x drops a column of S,
    one of the output a row (DemP, section 4.2 "per_block"; the authors keep S as a fixed 1x1 convolution). Here S is
    two lists of positions, aligned with each other: channel `source[k]` of x is added to channel `target[k]` of the
    output. None stands for all channels of that side in order, so with both None it is a plain addition. The lists
    follow from which channels are live and are not part of the state.
    """

    source: Tensor | None
    target: Tensor | None

    def __init__(self) -> None:
        """Start as the identity."""
        super().__init__()
        self.register_buffer("source", None, persistent=False)
        self.register_buffer("target", None, persistent=False)

    def connect(self, source_live: Tensor, target_live: Tensor, *, device: torch.device | None = None) -> None:
        """Join the channels alive on both sides.

        source_live, target_live: int64 [channels of x], [channels of the output], the sorted indices that the channels
        had before any was removed. device: where the network is; None keeps the lists where the arguments are.
        """
        shared = source_live[torch.isin(source_live, target_live)]
        whole_source, whole_target = len(shared) == len(source_live), len(shared) == len(target_live)
        self.source = None if whole_source else torch.searchsorted(source_live, shared).to(device)
        self.target = None if whole_target else torch.searchsorted(target_live, shared).to(device)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """Return `out` float [B, T, H, W] plus the channels of `x` float [B, S, H, W] that belong to it."""
        if self.source is None and self.target is None:
            return out + x
        # The index operations give NCHW layout whatever they get, and are slow along a strided axis.
        if out.is_contiguous(memory_format=torch.channels_last):
            batch, _, height, width = out.shape
            return self._add(_rows(x), _rows(out)).view(batch, height, width, -1).permute(0, 3, 1, 2)
        return self._add(x, out)

    def _add(self, x: Tensor, out: Tensor) -> Tensor:
        picked = x if self.source is None else x.index_select(1, self.source)
        return out + picked if self.target is None else out.index_add(1, self.target, picked)


def _rows(maps: Tensor) -> Tensor:
    """Return [B, C, H, W] as [B * H * W, C], a view for channels_last maps."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)
