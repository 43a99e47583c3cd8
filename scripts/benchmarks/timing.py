"""Timing by interleaved rounds: these machines drift by a third, so only ratios from one run mean something."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def interleave(
    variants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each variant in each round; every round runs all variants, after `warmup` rounds.

    clock: wall seconds by default. `time.process_time`, CPU seconds, is for work of one thread beside busy neighbours.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(warmup + rounds):
        for name, variant in variants.items():
            started = clock()
            variant()
            if number >= warmup:
                seconds[name].append(clock() - started)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Return the median, least and largest of the ratios round by round."""
    return middle([a / b for a, b in zip(numerator, denominator, strict=True)])


def middle(values: Sequence[float]) -> dict[str, float]:
    """Return the median, least and largest value as a row of the table has them."""
    return {"ratio": statistics.median(values), "low": min(values), "high": max(values)}


def row(name: str, values: Mapping[str, float], *, goal: str, unit: str = "x", note: str = "") -> dict[str, Any]:
    """Return one line of the benchmark's table."""
    return {"name": name, **values, "goal": goal, "unit": unit, "note": note}


def spread(seconds: list[float]) -> float:
    """Return the largest over the least time of a variant: above 1.5 the run is too noisy to judge."""
    return max(seconds) / min(seconds)
