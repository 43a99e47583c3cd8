"""Network slimming (Liu, Li, Shen, Huang, Yan, Zhang, ICCV 2017)."""

from __future__ import annotations

from typing import Literal

from robustlab.core.checks import at_least
from robustlab.engine.method import Context
from robustlab.methods.pruning.one_shot import BaselineSurgery, OneShot
from robustlab.models.units import Units
from robustlab.pruning.death import DeathSettings
from robustlab.pruning.penalty import add_gradient, targeted
from robustlab.pruning.scores import Scores, scale_scores
from robustlab.pruning.target import TargetSettings


class NetworkSlimming(OneShot):
    """Trains with an L1 penalty on all normalisation scales, prunes the smallest |gamma|, and continues without it.

    - strength: weight of the penalty; in the paper 1e-4 for VGG, 1e-5 for ResNet and DenseNet.
    """

    def __init__(
        self,
        *,
        target: TargetSettings | None = None,
        prune_at: float = 0.5,
        scope: Literal["global", "per_layer"] = "global",
        strength: float = 1e-4,
        label_smoothing: float = 0.0,
        surgery: BaselineSurgery | None = None,
        death: DeathSettings | None = None,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(
            target=target,
            prune_at=prune_at,
            scope=scope,
            label_smoothing=label_smoothing,
            surgery=surgery,
            death=death,
        )
        at_least("strength", strength, 0)
        self.strength = strength

    def build(self, context: Context) -> None:
        """Make the network and hook the penalty into its updates. Raises `ConfigError` for units without a scale."""
        super().build(context)
        learner = self.learners["network"]
        scale_scores(learner.network, self.prunable())
        learner.on_gradients = self._add_penalty
        self.after_surgery()

    def after_surgery(self) -> None:
        """Collect the current scales."""
        self._scales = targeted(self.learners["network"].network, self.units, "scale_only")

    def scores(self, units: Units, round_number: int) -> Scores:
        """Return |gamma|."""
        return scale_scores(self.learners["network"].network, units)

    def _add_penalty(self) -> None:
        if not self.pruned:
            add_gradient(self._scales, "l1", self.strength)
