"""Base of methods that train one network: how it predicts."""

from __future__ import annotations

from torch import Tensor

from robustlab.engine.inference import eval_logits
from robustlab.engine.method import Method


class SingleNetwork(Method):
    """A method with one learner, "network"; a subclass writes `loss`."""

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits of the network in eval mode, (B, C) float32."""
        return eval_logits(self.learners["network"], images, runtime=self.context.runtime)
