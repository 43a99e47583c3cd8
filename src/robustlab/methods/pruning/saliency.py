"""SNAP-S and CroP-S: units pruned by derivatives of the loss for their gates, at initialisation or soon after it."""

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
    """What the scores are computed on: `batches` of `batch_size` training images without augmentation.

    refresh_norm: let BatchNorm's running statistics be those of these batches while scores are computed; at
    initialisation they are (0, 1) otherwise.
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
    """In how many rounds of scoring and removal a target is reached, all before the same update.

    steps: 1 = one round; n > 1 = n + 2 rounds, to target - (target - start) * 0.5^i for i = 0 ... n and then to the
    target, or one round where the target does not exceed `start` (`cumulative_targets`).
    """

    steps: int = 1
    start: float = 0.5

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values out of range."""
        at_least("rounds.steps", self.steps, 1)
        within("rounds.start", self.start, 0, 1)


@dataclass(frozen=True)
class EarlyRounds(RoundSettings):
    """As `RoundSettings`, with the number of rounds of the authors' runs."""

    steps: int = 5


class Saliency(OneShot):
    """Prunes by |dL/dg| (SNAP-S) or |H g| (CroP-S; in several rounds CroP-it-S), as the baselines of the DemP authors.

    criterion: "snap" or "crop".
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
        """Return the scores, on other batches in each round, averaged over ranks: each has its own statistics."""
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
    """EarlySNAP-S and EarlyCroP-S: the same scores once training has settled (Rachwan et al. 2022, as DemP's authors).

    Units are removed at the end of the first epoch e with 0 < |d_e - d_{e-1}| / ||theta_0|| < 1 - target, where
    d_e = ||theta_e - theta_0|| over all trainable parameters, d_0 = 0, and never after the last epoch; the target is a
    share of neurons in the authors' code, and is taken as it stands whatever it is a share of. latest: prune
    after this share of the run's updates even if that has not happened; None = then the network stays whole. The test
    for dead units begins with the pruning.
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
        """Make the network and keep its initial weights; every start of the run makes them anew from the seed."""
        super().build(context)
        self.initial = [weight.detach().clone() for weight in self._weights()]
        self.initial_norm = float(_norm(self.initial))

    def due(self, t: int) -> bool:
        """Return whether the deadline is over."""
        return self.latest is not None and t >= round(self.latest * self.total_updates)

    def before_update(self, t: int) -> None:
        """Prune at the deadline; remove dead units only after the pruning: distances are between equal shapes."""
        if self.pruned or self.due(t) or not self.surgery.enabled:
            super().before_update(t)

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Prune if training has settled; report "pruning/weight_change", what that is judged by, up to then."""
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
        """Score and remove, round by round; the initial weights are not needed any more."""
        super().prune_to_target(t)
        self.initial = []

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a pruned network and the distance from the start at the end of the last epoch."""
        return {**super().state_dict(), "distance": self.distance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        self.distance = state["distance"]

    def _weights(self) -> list[Tensor]:
        return [weight for weight in self.learners["network"].network.parameters() if weight.requires_grad]


def has_settled(change: float, *, target: float) -> bool:
    """Return whether an epoch's relative change of the distance from the start lets a target be pruned."""
    return 0 < change < 1 - target


@torch.no_grad()
def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]).norm()
