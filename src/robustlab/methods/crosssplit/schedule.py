"""What changes with the epoch in CrossSplit: gamma, equation (10), and the weight lambda_u of equation (8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.methods.crosssplit.settings import Settings

WARMUP, RAMP, DELTA, TRAINED = 490, 1_568, 980, 28_420
"""Updates of a network at the paper's scale, 25,000 labels per network and 300 epochs: the warm-up (10 epochs of 49
batches of 512), the ramp of lambda_u (16 epochs of 98 batches of 256), the unit of the relaxation stages (10 of these
epochs), and all after warm-up (290)."""
LAMBDA_U = 30.0


@dataclass(frozen=True)
class Schedule:
    """The schedule of a run. warmup, ramp_epochs, delta: in epochs. See equations (8) and (10)."""

    warmup: int
    lambda_u: float
    ramp_epochs: float
    delta: float

    @classmethod
    def of(cls, settings: Settings, *, epochs: int, warmup_steps: int, steps: int) -> Schedule:
        """Return the schedule, with numbers for what is "auto".

        At the paper's scale these are the paper's numbers. Elsewhere the lengths are those of the paper counted in
        updates instead of epochs, warm-up at most half of the run, and lambda_u is less in the measure in which a
        network has fewer updates after warm-up: guesses have less time to become better than what they are fed with.

        epochs: of the run. warmup_steps, steps: updates of a network per epoch, during and after warm-up.
        """
        warmup, loss, delta = settings.warmup.epochs, settings.loss, settings.gamma.delta
        if isinstance(warmup, str):
            warmup = min(math.ceil(WARMUP / warmup_steps), epochs // 2)
        updates = steps * (epochs - warmup)
        return cls(
            warmup,
            LAMBDA_U * min(1.0, updates / TRAINED) if isinstance(loss.lambda_u, str) else loss.lambda_u,
            RAMP / steps if isinstance(loss.ramp_epochs, str) else loss.ramp_epochs,
            DELTA / steps if isinstance(delta, str) else delta,
        )


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
