"""Class-balanced ERM: a baseline that balances labels without using any attribute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.core.checks import choose
from robustlab.data.dataset import Batch
from robustlab.data.serving.loader import Loader
from robustlab.engine.method import Context, Position
from robustlab.methods.erm import ERM


def inverse_frequency(values: Tensor) -> Tensor:
    """Return the inverse frequency of each sample's value, (n,) float64, weights that make all values equally likely.

    - values: (n,) int64, non-negative.
    """
    return 1 / torch.bincount(values).double()[values]


class ClassBalanced(ERM):
    """Cross-entropy with equal weight for all classes.

    - balance: "draws" draws images with replacement, each with probability 1 / (C n_y), n draws per epoch; "loss"
      visits all images and weights the loss of each by n / (C n_y).
    """

    def __init__(
        self,
        *,
        balance: Literal["draws", "loss"] = "draws",
        label_smoothing: float = 0.0,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing)
        choose("balance", balance, ("draws", "loss"))
        self.balance = balance

    def build(self, context: Context) -> None:
        """Make the network, and compute the weights of draws and losses from the training labels."""
        labels = context.data.assigned[context.data.train_indices]
        weights = inverse_frequency(labels)
        weights = weights / weights.mean()
        self.draw_weights = weights if self.balance == "draws" else None
        by_class = torch.ones(context.task.num_classes)
        if self.balance == "loss":
            by_class[labels] = weights.float()
        self.loss_weights = by_class.to(context.runtime.device)
        super().build(context)

    def _train_loader(self, context: Context) -> Loader:
        return context.data.loader(
            batch_size=context.batch_size, views=("weak",), purpose="train", weights=self.draw_weights
        )

    def loss(self, batch: Batch, position: Position) -> Mapping[str, Tensor]:
        """Return {"loss", "accuracy"}."""
        assert batch.targets is not None
        logits = self.learners["network"](batch.images).float()
        losses = F.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=self.label_smoothing)
        return {
            "loss": (losses * self.loss_weights[batch.targets]).mean(),
            "accuracy": (logits.argmax(dim=1) == batch.targets).float().mean(),
        }
