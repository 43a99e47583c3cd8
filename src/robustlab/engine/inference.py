"""Predictions in eval mode: of one batch, and of the whole training split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.engine.learner import Learner


def eval_logits(learner: Learner, images: Tensor, *, runtime: Runtime, averaged: bool = True) -> Tensor:
    """Return the logits of a learner's network in eval mode, (B, C) float32.

    - averaged: use the moving average if there is one, as evaluation does; False: use the network itself, for anything
      that training depends on.
    """
    network = (learner.inference_network if averaged else learner.network).eval()
    with torch.no_grad(), runtime.autocast():
        logits = network(images)
    return logits.float()


def train_predictions(
    data: Data, predict: Callable[[Tensor], dict[str, Tensor]], *, batch_size: int
) -> dict[str, Tensor]:
    """Return name -> predicted class on the un-augmented train split, (N,) int64 on the CPU; -1 for unused samples.

    - predict: images -> named logits, (B, C) each.
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
