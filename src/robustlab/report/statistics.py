"""Estimates over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """Mean and spread of one number over `count` seeds.

    `std` is the sample standard deviation, sqrt(sum((x - mean)^2) / (n - 1)); None for a single seed, where nothing is
    known of the spread. A NaN or infinity among the values (a run that diverged) makes the mean NaN.
    """

    mean: float
    std: float | None
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """Return the estimate from at least one value."""
    assert values, "an estimate needs at least one value"
    count = len(values)
    if not all(math.isfinite(value) for value in values):
        return Estimate(math.nan, math.nan if count > 1 else None, count)
    mean = math.fsum(value / count for value in values)
    mean = min(max(mean, min(values)), max(values))  # rounding must not carry the mean out of the values' range
    if count == 1:
        return Estimate(mean, None, 1)
    scale = max(abs(value - mean) for value in values)
    if scale == 0:
        return Estimate(mean, 0.0, count)
    squares = math.fsum(((value - mean) / scale) ** 2 for value in values)
    return Estimate(mean, scale * math.sqrt(squares / (count - 1)), count)
