"""Base class of methods that train one network."""

from __future__ import annotations

from torch import Tensor

from robustlab.methods.base import Method, Stage
from robustlab.methods.inference import eval_logits
from robustlab.methods.memorisation import DiagnosticsSettings, memorisation_metrics


class SingleNetwork(Method):
    """A method with one learner, "network"; a subclass writes `loss` and sets `diagnostics`."""

    diagnostics: DiagnosticsSettings

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Return "diagnostics/memorised" and "diagnostics/corrected" when due, if some labels are known to be wrong."""
        if not self.diagnostics.due(epoch, self.context.epochs):
            return {}
        return memorisation_metrics(self.context.data, self.predictions, settings=self.diagnostics)

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits of the network in eval mode, (B, C) float32."""
        return eval_logits(self.learners["network"], images, runtime=self.context.runtime)
