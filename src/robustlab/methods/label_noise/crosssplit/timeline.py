"""CrossSplit's time-dependent quantities: gamma, equation (10), the ramp of (8), and values set to "auto"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.methods.label_noise.crosssplit.crosssplit_settings import Settings

HALF, TEN_EPOCHS, TRAINED = 25_000, 10 * 98, 290 * 98
"""The paper's scale: labels per network, and updates in 10 and 290 passes over them in batches of 256, 98 per pass."""

LAMBDA_U, ALPHA = 30.0, 4.0
"""The weight of guesses and MixUp's parameter at that scale."""


@dataclass(frozen=True)
class Schedule:
    """Hyperparameters that may depend on the length of a run, see `Schedule.of`.

    - warmup: number of warm-up epochs.
    - delta: delta of equation (10), in epochs.
    - lambda_u: lambda_u of equation (8).
    - alpha: alpha of MixUp, equation (7).
    - strong: share of strong views among the mixed images.
    """

    warmup: int
    delta: float
    lambda_u: float
    alpha: float
    strong: float

    @classmethod
    def of(cls, settings: Settings, *, epochs: int, steps: int) -> Schedule:
        """Return the schedule, with "auto" replaced by numbers, which equal the paper's at the paper's scale.

        Warm-up and delta last as many epochs as 980 updates take, warm-up at most a third of the run. Everything that
        makes the stage after it harder (guesses as targets, MixUp, strong views) shrinks in proportion to how many
        fewer updates than in the paper a network has to improve on its targets.

        - epochs: epochs of the run.
        - steps: updates of each network per epoch after warm-up.
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
    """Return "own_half" or "full"; "auto" means all labels if a network has fewer of its own than in the paper."""
    if wanted == "auto":
        return "own_half" if labels >= HALF else "full"
    return wanted


def gamma_at(epoch: int, *, warmup: int, values: Sequence[float], until: Sequence[float], delta: float) -> float:
    """Return gamma of equation (10): `values[i]` while epoch < warmup + until[i] * delta, then the last value.

    - epoch: counted from zero at the start of warm-up.
    """
    for value, end in zip(values, until, strict=False):
        if epoch < warmup + end * delta:
            return float(value)
    return float(values[-1])


def ramp(time: float, *, warmup: int, epochs: float) -> float:
    """Return clip((time - warmup) / epochs, 0, 1), or 1 after warm-up if epochs = 0.

    - time: epoch + step / steps.
    """
    if epochs == 0:
        return float(time >= warmup)
    return min(max((time - warmup) / epochs, 0.0), 1.0)
