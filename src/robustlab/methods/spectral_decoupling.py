"""Spectral decoupling: a penalty on logits in place of weight decay (Pezeshki et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from robustlab.core.checks import at_least
from robustlab.data.dataset import Batch
from robustlab.engine.method import Position
from robustlab.methods.erm import ERM


class SpectralDecoupling(ERM):
    """Cross-entropy plus coefficient * mean(logits^2), the mean over all logits of all images.

    It replaces weight decay: set optimizer.weight_decay=0.

    - coefficient: weight of the penalty; note that there is no factor 1/2.
    - delay: number of initial steps without the penalty (as in the official code for coloured digits).
    """

    def __init__(
        self,
        *,
        coefficient: float = 0.1,
        delay: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing)
        at_least("coefficient", coefficient, 0)
        at_least("delay", delay, 0)
        self.coefficient, self.delay = coefficient, delay

    def loss(self, batch: Batch, position: Position) -> Mapping[str, Tensor]:
        """Return {"loss", "loss_labelled", "penalty", "accuracy"}; penalty: the mean of squared logits."""
        assert batch.targets is not None
        logits = self.learners["network"](batch.images).float()
        cross_entropy = F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)
        penalty = logits.square().mean()
        penalised = cross_entropy + self.coefficient * penalty
        return {
            "loss": penalised if position.global_step >= self.delay else cross_entropy,
            "loss_labelled": cross_entropy,
            "penalty": penalty,
            "accuracy": (logits.argmax(dim=1) == batch.targets).float().mean(),
        }
