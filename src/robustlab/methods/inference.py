"""Compute predictions: one forward pass in eval mode without gradients, float32 logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from robustlab.engine.learner import Learner
    from robustlab.engine.runtime import Runtime


def eval_logits(learner: Learner, images: Tensor, *, runtime: Runtime, averaged: bool = True) -> Tensor:
    """Return the logits of a learner's network in eval mode, (B, C) float32.

    - averaged: use the moving average if there is one, as evaluation does; False: use the network itself, for anything
      that training depends on.
    """
    network = (learner.inference_network if averaged else learner.network).eval()
    with torch.no_grad(), runtime.autocast():
        logits = network(images)
    return logits.float()
