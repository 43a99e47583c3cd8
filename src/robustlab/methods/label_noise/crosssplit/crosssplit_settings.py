"""Hyperparameters of CrossSplit, grouped as in its YAML. Defaults follow the paper; for "auto" see `schedule`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from robustlab.config.kinds import Range
from robustlab.core.checks import at_least, choose
from robustlab.core.errors import ConfigError


def number_or_auto(key: str, value: float | str) -> None:
    """Raise `ConfigError` unless `method.<key>` is "auto" or a non-negative number."""
    if isinstance(value, str):
        choose(key, value, ("auto", "a number"))
    else:
        at_least(key, value, 0)


@dataclass(frozen=True)
class SplitSettings:
    """The halves.

    - disjoint: False gives both networks all the data, as the official code does.
    - seed: null for the run's seed.
    """

    disjoint: bool = True
    seed: int | None = None
    stratify: bool = False


@dataclass(frozen=True)
class WarmupSettings:
    """Warm-up with plain training, equation (9). For "auto" see `schedule`.

    - batch_size: null for twice the labelled batch size.
    """

    epochs: Annotated[int, Range(low=0)] | Literal["auto"] = "auto"
    data: Literal["own_half", "full", "auto"] = "auto"
    batch_size: int | None = None
    neg_entropy: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        number_or_auto("warmup.epochs", self.epochs)
        choose("warmup.data", self.data, ("own_half", "full", "auto"))
        if isinstance(self.neg_entropy, str):
            choose("warmup.neg_entropy", self.neg_entropy, ("auto", "a number"))


@dataclass(frozen=True)
class LabelledSettings:
    """Labelled batches. `batch_size`: null for trainer.batch_size."""

    batch_size: int | None = None
    drop_last: bool = False


@dataclass(frozen=True)
class UnlabelledSettings:
    """Unlabelled batches: int(batch_ratio * labelled batch size) samples of the other half; 0 for none (ablation)."""

    batch_ratio: float = 0.5
    drop_last: bool = False

    def __post_init__(self) -> None:
        at_least("unlabelled.batch_ratio", self.batch_ratio, 0)


@dataclass(frozen=True)
class JsdSettings:
    """Divergence, equations (4) and (5). `extrema_bn`: "as_is" leaves the peer in train mode in the second turn."""

    normalize: bool = True
    extrema_scope: Literal["labelled_half", "full"] = "labelled_half"
    extrema_bn: Literal["eval", "as_is"] = "eval"
    batch_size: int = 1000
    eps: float = 1e-8

    def __post_init__(self) -> None:
        choose("jsd.extrema_scope", self.extrema_scope, ("labelled_half", "full"))
        choose("jsd.extrema_bn", self.extrema_bn, ("eval", "as_is"))
        at_least("jsd.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class GammaSettings:
    """Relaxation, equation (10): values[i] until epoch warm-up + until[i] * delta, then the last value.

    - delta: for "auto" see `Schedule.of`.
    """

    values: Sequence[float] = (0.6, 0.8, 1.0)
    until: Sequence[float] = (2, 3)
    delta: Annotated[float, Range(low=0)] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        number_or_auto("gamma.delta", self.delta)
        if not self.values or any(not 0 <= value <= 1 for value in self.values):
            raise ConfigError(f"method.gamma.values is {list(self.values)}; give at least one value, all in [0, 1]")
        if len(self.until) != len(self.values) - 1 or list(self.until) != sorted(self.until):
            raise ConfigError(
                f"method.gamma.until is {list(self.until)}; give {len(self.values) - 1} increasing numbers, "
                f"one fewer than method.gamma.values has"
            )


@dataclass(frozen=True)
class GuessSettings:
    """Targets of unlabelled samples: from the network itself, or from both networks (as in DivideMix and UNICON)."""

    source: Literal["self", "both"] = "self"
    bn: Literal["train", "eval"] = "train"
    temperature: float = 0.5

    def __post_init__(self) -> None:
        choose("guess.source", self.source, ("self", "both"))
        choose("guess.bn", self.bn, ("train", "eval"))
        at_least("guess.temperature", self.temperature, 0, above=True)


@dataclass(frozen=True)
class CorrectSettings:
    """Targets of labelled samples. `source=self` and `hard` (one-hot of the corrected label) are ablations."""

    temperature: float = 0.5
    source: Literal["peer", "self"] = "peer"
    views: Literal[1, 2] = 2
    hard: bool = False

    def __post_init__(self) -> None:
        choose("correct.source", self.source, ("peer", "self"))
        choose("correct.views", self.views, (1, 2))
        at_least("correct.temperature", self.temperature, 0, above=True)


@dataclass(frozen=True)
class MixupSettings:
    """MixUp, equation (7): lambda ~ Beta(alpha, alpha), then max(lambda, 1 - lambda). For "auto" see `Schedule.of`.

    - alpha: 0 turns mixing off.
    - strong: share of strong views among the mixed images, the others being weak views (ours; 1 is the paper).
    """

    alpha: Annotated[float, Range(low=0)] | Literal["auto"] = "auto"
    strong: Annotated[float, Range(low=0, high=1)] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        number_or_auto("mixup.alpha", self.alpha)
        number_or_auto("mixup.strong", self.strong)
        if not isinstance(self.strong, str) and self.strong > 1:
            raise ConfigError(f"method.mixup.strong is {self.strong}; it is a share and must be at most 1")


@dataclass(frozen=True)
class LossSettings:
    """Weights of equation (8). A weight of 0 skips the term; lambda_c = 0 also skips its two forwards.

    - lambda_u: for "auto" see `Schedule.of`.
    """

    lambda_u: Annotated[float, Range(low=0)] | Literal["auto"] = "auto"
    ramp_epochs: float = 16
    lambda_c: float = 0.025
    tau: float = 0.05
    prior: float = 1.0

    def __post_init__(self) -> None:
        number_or_auto("loss.lambda_u", self.lambda_u)
        for name in ("ramp_epochs", "lambda_c", "prior"):
            at_least(f"loss.{name}", getattr(self, name), 0)
        at_least("loss.tau", self.tau, 0, above=True)


@dataclass(frozen=True)
class PerfSettings:
    """Fast paths. Fused forwards slightly change the batches seen by BatchNorm; precomputed targets change nothing."""

    fuse_guess: bool = False
    fuse_contrastive: bool = False
    precompute_targets: bool = False
    batch_size: int = 1000

    def __post_init__(self) -> None:
        at_least("perf.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class Settings:
    """All groups. `steps_per_epoch`: steps of a turn after warm-up; None for one pass over the labelled half."""

    split: SplitSettings
    warmup: WarmupSettings
    labelled: LabelledSettings
    unlabelled: UnlabelledSettings
    jsd: JsdSettings
    gamma: GammaSettings
    guess: GuessSettings
    correct: CorrectSettings
    mixup: MixupSettings
    loss: LossSettings
    perf: PerfSettings
    steps_per_epoch: int | None
    turn_order: Literal["sequential", "simultaneous"]

    @property
    def follows_the_run(self) -> bool:
        """Whether any value set to "auto" depends on the length of the run."""
        settings = (self.warmup.epochs, self.gamma.delta, self.loss.lambda_u, self.mixup.alpha, self.mixup.strong)
        return "auto" in settings

    def __post_init__(self) -> None:
        """Raise `ConfigError` for settings that contradict each other."""
        choose("turn_order", self.turn_order, ("sequential", "simultaneous"))
        if self.steps_per_epoch is not None:
            at_least("steps_per_epoch", self.steps_per_epoch, 1)
        if self.perf.precompute_targets and self.correct.source == "self":
            raise ConfigError(
                "method.perf.precompute_targets=true needs method.correct.source=peer: the network itself changes in "
                "every update, so its predictions cannot be precomputed"
            )
