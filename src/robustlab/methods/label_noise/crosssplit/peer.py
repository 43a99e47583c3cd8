"""Query the frozen peer: predictions for a batch or a whole half, and the class-wise extrema."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robustlab.core.runtime import Runtime
from robustlab.data.dataset import Batch
from robustlab.methods.label_noise.crosssplit.targets import ClassExtrema, jensen_shannon, mean_probabilities


@torch.no_grad()
def probabilities(peer: nn.Module, views: Sequence[Tensor], *, runtime: Runtime) -> Tensor:
    """Return p of equation (1), the mean softmax over views, (B, C) float32, with one forward for all views.

    The peer stays in its current mode; in eval mode one forward for all views equals one per view.
    """
    with runtime.autocast():
        logits = peer(torch.cat(list(views)))
    return mean_probabilities(*logits.chunk(len(views)))


def half_probabilities(
    peer: nn.Module, batches: Iterable[Batch], *, views: int, size: tuple[int, int], runtime: Runtime
) -> Tensor:
    """Return p of all samples in `batches`, of shape `size` = (N, C), float32; zero for other samples."""
    table = torch.zeros(size, device=runtime.device)
    peer.eval()
    for batch in batches:
        table[batch.index] = probabilities(peer, batch.views[:views], runtime=runtime)
    if runtime.world_size > 1:
        dist.all_reduce(table)
    return table


def measure_extrema(
    peer: nn.Module, batches: Iterable[Batch], *, num_classes: int, runtime: Runtime, train_mode: bool = False
) -> ClassExtrema:
    """Return the class-wise extrema, equation (5), of the peer's divergence from the labels on un-augmented images.

    - train_mode: keep BatchNorm in train mode, which also updates the peer's running statistics (official code, turn
      2).
    """
    extrema = ClassExtrema.empty(num_classes, runtime.device)
    mode = peer.training
    peer.train(train_mode)
    for batch in batches:
        assert batch.targets is not None
        divergence = jensen_shannon(probabilities(peer, batch.views, runtime=runtime), batch.targets)
        extrema = extrema.update(divergence, batch.targets)
    peer.train(mode)
    if runtime.world_size > 1:
        dist.all_reduce(extrema.low, op=dist.ReduceOp.MIN)
        dist.all_reduce(extrema.high, op=dist.ReduceOp.MAX)
    return extrema
