"""Baselines that prune once to a target: their common base, random pruning and magnitude pruning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robustlab.core import rng
from robustlab.core.checks import choose, within
from robustlab.engine.method import Context, Stage, settings
from robustlab.methods.pruning.pruned_network import PrunedNetwork
from robustlab.models.units import Units
from robustlab.pruning.death import DeathSettings
from robustlab.pruning.scores import NORMALIZERS, NORMS, Scores, magnitude_scores, normalised, random_scores
from robustlab.pruning.surgery_settings import SurgerySettings
from robustlab.pruning.target import TargetSettings, check_target, units_to_remove
from robustlab.pruning.unit_selection import SCOPES, Ranking


@dataclass(frozen=True)
class BaselineSurgery(SurgerySettings):
    """Like `SurgerySettings`; without `enabled`, only the pruning itself removes units, not the test for dead units."""

    enabled: bool = False


class OneShot(PrunedNetwork):
    """Cross-entropy training that prunes once along the way; a subclass ranks the units in `scores`.

    - target: share of the network to remove, see `TargetSettings`.
    - prune_at: when to prune, as a share of the run's updates: 0 is before the first, 1 after the last; the remaining
      updates are the fine-tuning.
    - scope: "global" ranks the units of all layers together, "per_layer" removes the same share of every layer.
    """

    def __init__(
        self,
        *,
        target: TargetSettings | None,
        prune_at: float,
        scope: str,
        label_smoothing: float,
        surgery: SurgerySettings | None,
        death: DeathSettings | None,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(
            label_smoothing=label_smoothing,
            surgery=settings(BaselineSurgery, surgery),
            death=death,
        )
        within("prune_at", prune_at, 0, 1)
        choose("scope", scope, SCOPES)
        self.target = settings(TargetSettings, target)
        self.prune_at, self.scope = prune_at, scope
        self.pruned = False

    @abstractmethod
    def scores(self, units: Units, round_number: int) -> Scores:
        """Return a score for each unit of the current network; the units with the lowest scores are removed."""

    def targets(self) -> list[float]:
        """Return the cumulative share removed after each round of scoring; all rounds happen before the same update."""
        return [self.target.share]

    def build(self, context: Context) -> None:
        """Make the network. Raises `ConfigError` for a target that cannot be reached."""
        super().build(context)
        scored = [one.name for one in self.prunable().sets]
        limits = {"min_width": self.surgery.min_width, "round_to": self.surgery.round_to}
        check_target(self.target, self.record.dense, scored, **limits)

    def prunable(self) -> Units:
        """Return the units, except those in excluded sets."""
        units = self.surgeon.units
        return Units(tuple(one for one in units.sets if one.name not in self.surgery.exclude))

    def before_update(self, t: int) -> None:
        """Prune if it is time to, then remove dead units if that is due."""
        if not self.pruned and self.due(t):
            self.prune_to_target(t)
        super().before_update(t)

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Prune if it is time to, before anything is measured."""
        if not self.pruned and self.due(self.learners["network"].updates):
            self.prune_to_target(self.learners["network"].updates)
        return super().end_epoch(stage, epoch)

    def due(self, t: int) -> bool:
        """Return whether it is time to prune before update `t`, counted from 0."""
        return t >= round(self.prune_at * self.total_updates)

    def prune_to_target(self, t: int) -> None:
        """Score and remove units, round by round."""
        units = self.prunable()
        for number, share in enumerate(self.targets()):
            ranking = Ranking(
                self.scores(units, number),
                original=self.surgeon.original,
                idle=self.surgeon.idle,
                scope=self.scope,
                min_width=self.surgery.min_width,
                round_to=self.surgery.round_to,
            )
            dead = units_to_remove(ranking, self.target.measure, share, self.record.dense)
            self.prune(dead, reason="score", t=t)
        self.pruned = True

    def state_dict(self) -> dict[str, Any]:
        """Return the base class's state, and whether the network has been pruned."""
        return {**super().state_dict(), "pruned": self.pruned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.pruned = state["pruned"]


class RandomPruning(OneShot):
    """Removes units chosen uniformly at random, as a function of the seed."""

    def __init__(
        self,
        *,
        target: TargetSettings | None = None,
        prune_at: float = 0.0,
        scope: Literal["global", "per_layer"] = "global",
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

    def scores(self, units: Units, round_number: int) -> Scores:
        """Return uniform random scores."""
        widths = {one.name: len(self.surgeon.live[one.name]) for one in units.sets}
        return random_scores(widths, key=rng.fold(self.context.seed, "random pruning", round_number))


class Magnitude(OneShot):
    """Removes the units whose incoming weights, bias and normalisation parameters have the smallest norm.

    - scope: "per_layer" is the authors' variant.
    - norm: "l1" or "l2".
    - normalizer: how scope "global" compares units of different layers: "mean" divides by the layer's mean norm, "none"
      uses raw norms, which grow with the number of weights per unit, so that layers with few inputs lose almost all of
      their units.
    """

    def __init__(
        self,
        *,
        target: TargetSettings | None = None,
        prune_at: float = 0.5,
        scope: Literal["global", "per_layer"] = "per_layer",
        norm: Literal["l1", "l2"] = "l1",
        normalizer: Literal["mean", "none"] = "mean",
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
        choose("norm", norm, list(NORMS))
        choose("normalizer", normalizer, NORMALIZERS)
        self.norm, self.normalizer = norm, normalizer

    def scores(self, units: Units, round_number: int) -> Scores:
        """Return the norms, normalised per layer."""
        return normalised(magnitude_scores(self.learners["network"].network, units, norm=self.norm), self.normalizer)
