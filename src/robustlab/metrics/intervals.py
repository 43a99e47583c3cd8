"""Confidence intervals of shares."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(accuracy: float, count: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share seen in `count` samples (Wilson 1927), within [0, 1]."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = accuracy + z * z / (2 * count)
    spread = z * math.sqrt(accuracy * (1 - accuracy) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return min(max(low, 0.0), accuracy), max(min(high, 1.0), accuracy)  # rounding must not put the share outside
