"""What changes with the epoch in CrossSplit: gamma, equation (10), and the weight lambda_u of equation (8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.methods.crosssplit.settings import Settings

WARMUP, TRAINED, LAMBDA_U = 490, 28_420, 30.0
"""Updates of a network in warm-up and after it, and the weight of guesses, at the paper's scale: 25,000 labels per
network, 10 epochs of 49 batches of 512, then 290 epochs of 98 batches of 256."""


@dataclass(frozen=True)
class Schedule:
    """What depends on the length of a run: epochs of warm-up, and lambda_u of equation (8)."""

    warmup: int
    lambda_u: float

    @classmethod
    def of(cls, settings: Settings, *, epochs: int, warmup_steps: int, steps: int) -> Schedule:
        """Return the schedule, with numbers for what is "auto".

        At the paper's scale these are the paper's. Elsewhere warm-up has as many updates as there, at most half of the
        run, and lambda_u is less in the measure in which a network has fewer updates after warm-up: guesses have
        less time to become better than what they are fed with.

        epochs: of the run. warmup_steps, steps: updates of a network per epoch, during and after warm-up.
        """
        warmup, weight = settings.warmup.epochs, settings.loss.lambda_u
        if isinstance(warmup, str):
            warmup = min(math.ceil(WARMUP / warmup_steps), epochs // 2)
        if isinstance(weight, str):
            weight = LAMBDA_U * min(1.0, steps * (epochs - warmup) / TRAINED)
        return cls(warmup, weight)


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
