"""How methods predict: one eval-mode forward without gradient, float32 logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from robustlab.engine.learner import Learner
    from robustlab.engine.runtime import Runtime


def eval_logits(learner: Learner, images: Tensor, *, runtime: Runtime) -> Tensor:
    """Return float32 logits [B, C] of a learner's inference network (its average where EMA is on) in eval mode."""
    network = learner.inference_network.eval()
    with torch.no_grad(), runtime.autocast():
        logits = network(images)
    return logits.float()
