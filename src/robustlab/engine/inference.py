"""Predictions in eval mode: of one batch, and of the whole training split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.engine.learner import Learner


def eval_logits(learner: Learner, images: Tensor, *, runtime: Runtime, averaged: bool = True) -> Tensor:
    """Return float32 logits [B, C] of a learner's network in eval mode.

    averaged: of its moving average, where there is one, which is what is evaluated; False: of the network itself, for
    what training depends on.
    """
    network = (learner.inference_network if averaged else learner.network).eval()
    with torch.no_grad(), runtime.autocast():
        logits = network(images)
    return logits.float()


def train_predictions(
    data: Data, predict: Callable[[Tensor], dict[str, Tensor]], *, batch_size: int
) -> dict[str, Tensor]:
    """Return what is predicted on the un-augmented train split.

    predict: images -> named logits [B, C]. Returns for each name the class as int64 [N] on the CPU, N = the whole
    train split; -1 where a sample is not trained on.
    """
    classes: dict[str, list[Tensor]] = {}
    indices: list[Tensor] = []
    for batch in data.evaluation("train", batch_size).epoch(0):
        indices.append(batch.index)
        for name, logits in predict(batch.images).items():
            classes.setdefault(name, []).append(logits.argmax(dim=1))
    index = torch.cat(indices).cpu()
    return {
        name: torch.full((data.num_train,), -1).index_copy(0, index, torch.cat(parts).cpu())
        for name, parts in classes.items()
    }
