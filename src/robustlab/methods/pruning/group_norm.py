"""Torch-Pruning's GroupNorm pruner (Fang et al., DepGraph, CVPR 2023), with removal by this package's surgeon.

The library finds coupled layers and ranks units. Its own removal would leave the optimizer with the old parameters; the
surgeon removes the same channels and updates the optimizer's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from robustlab.core.checks import at_least, choose
from robustlab.engine.method import Context, settings
from robustlab.methods.pruning.one_shot import BaselineSurgery, OneShot
from robustlab.models.units import Units
from robustlab.pruning.coupled import NORMALIZERS, add_group_shrinkage, coupled_scores, torch_pruning
from robustlab.pruning.death import DeathSettings
from robustlab.pruning.scores import Scores
from robustlab.pruning.target import TargetSettings


@dataclass(frozen=True)
class CoupledSurgery(BaselineSurgery):
    """Like `BaselineSurgery`, but refuses "per_block" for ResNets, whose selecting skips the library does not know."""

    residual: Literal["per_block", "stage_shared", "inner_only"] = "stage_shared"


class GroupNorm(OneShot):
    """Trains with a group penalty that is stronger for smaller units, prunes the smallest, and continues training.

    - strength: weight of the penalty (`reg` in the library); 0 turns it off.
    - alpha: how much stronger it is for the smallest unit of a layer than for the largest.
    - normalizer: units of different layers are compared by their importance relative to their layer's mean (the
      library's default) or maximum ("max": one large unit in a narrow layer makes all its others look small).
    """

    def __init__(
        self,
        *,
        target: TargetSettings | None = None,
        prune_at: float = 0.5,
        scope: Literal["global", "per_layer"] = "global",
        strength: float = 5e-4,
        alpha: float = 16.0,
        normalizer: Literal["max", "mean"] = "mean",
        label_smoothing: float = 0.0,
        surgery: CoupledSurgery | None = None,
        death: DeathSettings | None = None,
    ) -> None:
        """Raise `ConfigError` for values out of range, or if torch-pruning is not installed."""
        super().__init__(
            target=target,
            prune_at=prune_at,
            scope=scope,
            label_smoothing=label_smoothing,
            surgery=settings(CoupledSurgery, surgery),
            death=death,
        )
        at_least("strength", strength, 0)
        at_least("alpha", alpha, 1)
        choose("normalizer", normalizer, NORMALIZERS)
        torch_pruning()
        self.strength, self.alpha, self.normalizer = strength, alpha, normalizer

    def build(self, context: Context) -> None:
        """Make the network and hook the penalty into its updates. Raises `ConfigError` for units it cannot rank."""
        super().build(context)
        self.scores(self.prunable(), 0)
        self.learners["network"].on_gradients = self._pull

    def scores(self, units: Units, round_number: int) -> Scores:
        """Return the library's importance of each unit."""
        example = torch.zeros(1, *self.context.task.image_shape, device=self.context.runtime.device)
        return coupled_scores(self.learners["network"].network, units, example, normalizer=self.normalizer)

    def _pull(self) -> None:
        if not self.pruned and self.strength:
            network = self.learners["network"].network
            add_group_shrinkage(network, self.prunable(), strength=self.strength, alpha=self.alpha)
