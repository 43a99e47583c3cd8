"""SNAP-S and CroP-S: prune units by derivatives of the loss with respect to their gates, at initialisation or later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robustlab.core.checks import at_least, choose, within
from robustlab.core.console import warn
from robustlab.data.dataset import Batch
from robustlab.engine.method import Context, Stage, settings
from robustlab.methods.pruning.one_shot import BaselineSurgery, OneShot
from robustlab.models.units import Units
from robustlab.pruning.death import DeathSettings
from robustlab.pruning.scores import Scores, crop_scores, refreshed_statistics, snap_scores
from robustlab.pruning.target import TargetSettings
from robustlab.pruning.unit_selection import cumulative_targets

CRITERIA = {"snap": snap_scores, "crop": crop_scores}


@dataclass(frozen=True)
class ScoringSettings:
    """The data for computing scores: `batches` of `batch_size` un-augmented training images.

    - refresh_norm: use BatchNorm statistics of these batches while computing scores; at initialisation the running
      statistics would otherwise be (0, 1).
    """

    batches: int = 10
    batch_size: int = 512
    refresh_norm: bool = False

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values out of range."""
        at_least("scoring.batches", self.batches, 1)
        at_least("scoring.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class RoundSettings:
    """The rounds of scoring and removal that reach a target, all before the same update.

    - steps: 1 means one round; n > 1 means n + 2 rounds, to target - (target - start) * 0.5^i for i = 0 ... n and then
      to the target, or one round if the target does not exceed `start` (see `cumulative_targets`).
    """

    steps: int = 1
    start: float = 0.5

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values out of range."""
        at_least("rounds.steps", self.steps, 1)
        within("rounds.start", self.start, 0, 1)


@dataclass(frozen=True)
class EarlyRounds(RoundSettings):
    """Like `RoundSettings`, with the authors' number of rounds as the default."""

    steps: int = 5


class Saliency(OneShot):
    """Prunes by |dL/dg| (SNAP-S) or |H g| (CroP-S; CroP-it-S with several rounds), as in the DemP authors' baselines.

    - criterion: "snap" or "crop".
    - scoring: the data for computing scores.
    - rounds: the rounds of scoring and removal.
    """

    def __init__(
        self,
        *,
        criterion: Literal["snap", "crop"] = "snap",
        target: TargetSettings | None = None,
        prune_at: float = 0.0,
        scope: Literal["global", "per_layer"] = "global",
        scoring: ScoringSettings | None = None,
        rounds: RoundSettings | None = None,
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
        choose("criterion", criterion, list(CRITERIA))
        self.criterion = criterion
        self.scoring = settings(ScoringSettings, scoring)
        self.rounds = settings(RoundSettings, rounds)

    def targets(self) -> list[float]:
        """Return the cumulative targets of the rounds."""
        return cumulative_targets(self.target.share, start=self.rounds.start, steps=self.rounds.steps)

    def scores(self, units: Units, round_number: int) -> Scores:
        """Return the scores, on different batches in each round, averaged over ranks with their own statistics."""
        network = self.learners["network"].network
        refreshed = (
            refreshed_statistics(network, self._batches(round_number)) if self.scoring.refresh_norm else nullcontext()
        )
        with refreshed:
            found = CRITERIA[self.criterion](network, units, self._batches(round_number))
        return {name: self.context.runtime.mean_over_ranks(value) for name, value in found.items()}

    def _batches(self, round_number: int) -> Iterator[Batch]:
        data = self.context.data
        size = min(self.scoring.batch_size, len(data.train_indices))
        loader = data.loader(batch_size=size, views=("test",), purpose="pruning scores", shard=False)
        return loader.epoch(round_number, steps=self.scoring.batches)


class EarlySaliency(Saliency):
    """EarlySNAP-S and EarlyCroP-S: the same scores once training has settled (Rachwan et al. 2022; DemP's authors).

    Units are removed at the end of the first epoch e with 0 < |d_e - d_{e-1}| / ||theta_0|| < 1 - target, where
    d_e = ||theta_e - theta_0|| over all trainable parameters and d_0 = 0, but never after the last epoch. In the
    authors' code the target is a share of neurons; here its value is used whatever it is a share of. Testing for dead
    units starts with the pruning.

    - latest: prune after this share of the run's updates even if training has not settled; None leaves the network
      whole in that case.
    """

    def __init__(
        self,
        *,
        criterion: Literal["snap", "crop"] = "snap",
        target: TargetSettings | None = None,
        latest: float | None = None,
        scope: Literal["global", "per_layer"] = "global",
        scoring: ScoringSettings | None = None,
        rounds: EarlyRounds | None = None,
        label_smoothing: float = 0.0,
        surgery: BaselineSurgery | None = None,
        death: DeathSettings | None = None,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(
            criterion=criterion,
            target=target,
            scope=scope,
            scoring=scoring,
            rounds=settings(EarlyRounds, rounds),
            label_smoothing=label_smoothing,
            surgery=surgery,
            death=death,
        )
        if latest is not None:
            within("latest", latest, 0, 1)
        self.latest = latest
        self.distance = 0.0

    def build(self, context: Context) -> None:
        """Make the network and keep its initial weights, which every start of the run recreates from the seed."""
        super().build(context)
        self.initial = [weight.detach().clone() for weight in self._weights()]
        self.initial_norm = float(_norm(self.initial))

    def due(self, t: int) -> bool:
        """Return whether the deadline has passed."""
        return self.latest is not None and t >= round(self.latest * self.total_updates)

    def before_update(self, t: int) -> None:
        """Prune at the deadline; remove dead units only after pruning, because distances need equal shapes."""
        if self.pruned or self.due(t) or not self.surgery.enabled:
            super().before_update(t)

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Prune if training has settled; until then report the criterion, "pruning/weight_change"."""
        found = {}
        if not self.pruned:
            distance = float(_norm([now - then for now, then in zip(self._weights(), self.initial, strict=True)]))
            change = abs(distance - self.distance) / self.initial_norm
            self.distance = distance
            found["pruning/weight_change"] = change
            if has_settled(change, target=self.target.share) and epoch + 1 < stage.epochs:
                self.prune_to_target(self.learners["network"].updates)
            elif epoch + 1 == stage.epochs and self.context.runtime.is_main:
                least = 1 - self.target.share
                warn(
                    f"nothing was pruned: in every epoch before the last the distance from the initial weights changed "
                    f"by {least:.3g} of their norm or more; train longer, or set a deadline, method.latest"
                )
        return {**super().end_epoch(stage, epoch), **found}

    def prune_to_target(self, t: int) -> None:
        """Score and remove units, round by round; the initial weights are no longer needed."""
        super().prune_to_target(t)
        self.initial = []

    def state_dict(self) -> dict[str, Any]:
        """Return the base class's state and the distance from the initial weights at the end of the last epoch."""
        return {**super().state_dict(), "distance": self.distance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.distance = state["distance"]

    def _weights(self) -> list[Tensor]:
        return [weight for weight in self.learners["network"].network.parameters() if weight.requires_grad]


def has_settled(change: float, *, target: float) -> bool:
    """Return whether the relative change in the distance from initialisation is small enough to prune to a target."""
    return 0 < change < 1 - target


@torch.no_grad()
def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]).norm()
