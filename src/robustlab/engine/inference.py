"""How methods predict: one eval-mode forward without gradient, float32 logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from robustlab.core.runtime import Runtime
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
