"""ELR: early-learning regularisation (Liu, Niles-Weed, Razavian, Fernandez-Granda, NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Batch
from robustlab.engine.method import Context, Position
from robustlab.engine.shared_batch import whole
from robustlab.methods.single_network import SingleNetwork

CLAMP = 1e-4
"""Minimum distance of probabilities from 0 and 1 (official code), so that log(1 - <p, t>) stays finite."""


def early_learning_penalty(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of log(1 - <p, t>).

    - probabilities: p, (B, C) float, carries the gradient.
    - targets: t, (B, C) float.

    Source: Liu et al. (2020), equation (6).
    """
    return torch.log(1 - (targets * probabilities).sum(dim=1)).mean()


class ELR(SingleNetwork):
    """Cross-entropy plus a penalty that pulls predictions towards those of earlier epochs.

    Every training sample has a target t, a moving average of its predictions: t = momentum * t + (1 - momentum) * p.
    The paper uses strength 3 and momentum 0.7 for CIFAR-10, 7 and 0.9 for CIFAR-100.

    - strength: lambda, the weight of the penalty.
    - momentum: beta, the decay of the targets, in [0, 1).
    """

    def __init__(self, *, strength: float = 3.0, momentum: float = 0.7) -> None:
        """Raise `ConfigError` for values out of range."""
        if strength < 0:
            raise ConfigError(f"method.strength is {strength}; it must be 0 (cross-entropy) or positive")
        if not 0 <= momentum < 1:
            raise ConfigError(f"method.momentum is {momentum}; it must lie in [0, 1)")
        self.strength, self.momentum = strength, momentum

    def build(self, context: Context) -> None:
        """Make the network and the targets, (N, C) float32, which are zero until a sample is first seen."""
        super().build(context)
        self.targets = torch.zeros(context.data.num_train, context.task.num_classes, device=context.runtime.device)

    def loss(self, batch: Batch, position: Position) -> Mapping[str, Tensor]:
        """Return {"loss", "loss_labelled", "loss_penalty", "accuracy"}; updates the batch's targets first."""
        assert batch.targets is not None
        logits = self.learners["network"](batch.images).float()
        probabilities = logits.softmax(dim=1).clamp(CLAMP, 1 - CLAMP)
        with torch.no_grad():
            normalised = probabilities / probabilities.sum(dim=1, keepdim=True)
            runtime = self.context.runtime
            index = whole(batch.index, batch.total, runtime=runtime)
            rows = whole(normalised, batch.total, runtime=runtime)
            self.targets[index] = self.momentum * self.targets[index] + (1 - self.momentum) * rows
        cross_entropy = F.cross_entropy(logits, batch.targets)
        penalty = early_learning_penalty(probabilities, self.targets[batch.index])
        return {
            "loss": cross_entropy + self.strength * penalty,
            "loss_labelled": cross_entropy,
            "loss_penalty": penalty,
            "accuracy": (logits.argmax(dim=1) == batch.targets).float().mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the targets."""
        return {"targets": self.targets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.targets.copy_(state["targets"])
