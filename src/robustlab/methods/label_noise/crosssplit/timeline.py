"""What depends on time in CrossSplit: gamma, equation (10), the ramp of (8), and what "auto" makes of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.methods.label_noise.crosssplit.crosssplit_settings import Settings

HALF, TEN_EPOCHS, TRAINED = 25_000, 10 * 98, 290 * 98
"""The paper's scale: labels of a network, and updates in 10 and 290 passes over them in batches of 256, 98 each."""

LAMBDA_U, ALPHA = 30.0, 4.0
"""The weight of guesses and MixUp's parameter at that scale."""


@dataclass(frozen=True)
class Schedule:
    """What the length of a run decides: see `Schedule.of`.

    warmup: its epochs. delta: of equation (10), epochs. lambda_u: of equation (8). alpha: of MixUp, equation (7).
    strong: share of strong views among the images that are mixed.
    """

    warmup: int
    delta: float
    lambda_u: float
    alpha: float
    strong: float

    @classmethod
    def of(cls, settings: Settings, *, epochs: int, steps: int) -> Schedule:
        """Return the schedule, with numbers for what is "auto": the paper's at the paper's scale.

        Warm-up and delta take as many epochs as 980 updates, warm-up at most a third of the run. What makes the stage
        after it harder (guesses as targets, MixUp, strong views) shrinks in the measure in which a network has fewer
        updates than in the paper to get better than what it is fed with.

        epochs: of the run. steps: updates of a network per epoch after warm-up.
        """
        warmup, delta, weight = settings.warmup.epochs, settings.gamma.delta, settings.loss.lambda_u
        alpha, strong = settings.mixup.alpha, settings.mixup.strong
        if isinstance(warmup, str):
            warmup = min(math.ceil(TEN_EPOCHS / steps), epochs // 3)
        share = min(1.0, steps * (epochs - warmup) / TRAINED)
        return cls(
            warmup=warmup,
            delta=TEN_EPOCHS / steps if isinstance(delta, str) else delta,
            lambda_u=LAMBDA_U * share if isinstance(weight, str) else weight,
            alpha=ALPHA * share if isinstance(alpha, str) else alpha,
            strong=share if isinstance(strong, str) else strong,
        )


def warmup_data(wanted: str, *, labels: int) -> str:
    """Return "own_half" or "full"; "auto" = all labels where a network has fewer of its own than in the paper."""
    if wanted == "auto":
        return "own_half" if labels >= HALF else "full"
    return wanted


def gamma_at(epoch: int, *, warmup: int, values: Sequence[float], until: Sequence[float], delta: float) -> float:
    """Equation (10): `values[i]` while epoch < warmup + until[i] * delta, the last value from then on.

    epoch: from zero, counted from the start of warm-up.
    """
    for value, end in zip(values, until, strict=False):
        if epoch < warmup + end * delta:
            return float(value)
    return float(values[-1])


def ramp(time: float, *, warmup: int, epochs: float) -> float:
    """Return clip((time - warmup) / epochs, 0, 1); time = epoch + step / steps. 1 after warm-up where epochs = 0."""
    if epochs == 0:
        return float(time >= warmup)
    return min(max((time - warmup) / epochs, 0.0), 1.0)
