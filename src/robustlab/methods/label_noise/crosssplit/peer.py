"""What is asked of the frozen peer: predictions for a batch or for a whole half, and the class-wise extrema."""

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
    """Return p of equation (1): mean softmax over the views, float32 [B, C], by one forward of all views together.

    The peer runs in the mode it is in: in eval mode one forward gives what a forward per view gives.
    """
    with runtime.autocast():
        logits = peer(torch.cat(list(views)))
    return mean_probabilities(*logits.chunk(len(views)))


def half_probabilities(
    peer: nn.Module, batches: Iterable[Batch], *, views: int, size: tuple[int, int], runtime: Runtime
) -> Tensor:
    """Return p of all samples that `batches` serve: float32 [N, C] = `size`, zero for the other samples."""
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

    train_mode: leave BatchNorm in train mode, which also moves the peer's running statistics (official code, turn 2).
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
