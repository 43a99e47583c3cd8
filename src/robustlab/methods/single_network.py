"""Base of methods that train one network: how it predicts and what it reports."""

from __future__ import annotations

from torch import Tensor

from robustlab.diagnostics.memorisation import DiagnosticsSettings, memorisation_metrics
from robustlab.engine.inference import eval_logits
from robustlab.engine.method import Method, Stage


class SingleNetwork(Method):
    """A method with one learner, "network"; a subclass writes `loss` and sets `diagnostics`."""

    diagnostics: DiagnosticsSettings

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Return "diagnostics/memorised" and "diagnostics/corrected" where they are due and labels are known wrong."""
        if not self.diagnostics.due(epoch, self.context.epochs):
            return {}
        return memorisation_metrics(self.context.data, self.predictions, settings=self.diagnostics)

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits float32 [B, C] of the network in eval mode."""
        return eval_logits(self.learners["network"], images, runtime=self.context.runtime)
