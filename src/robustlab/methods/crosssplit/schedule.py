"""What changes with the epoch in CrossSplit: gamma, equation (10), and the weight lambda_u of equation (8)."""

from __future__ import annotations

from collections.abc import Sequence


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
