"""Schedules of the strength of DemP's penalty and noise, as functions of the update."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustlab.core.errors import ConfigError

KINDS = ("one_cycle", "constant", "cosine", "warmup", "step")
WARMUP_START = 1e-6
RISE = 0.3
"""Share of the span during which `one_cycle` rises."""


@dataclass(frozen=True)
class Schedule:
    """A strength as a function of the update t = 0, 1, ..., with peak v and span S (DemP's code; optax's one-cycle).

    - kind: "one_cycle" rises from v / 25 to v over the first 30 % of S, then falls to v / 250,000, both along half a
      cosine, and stays there; it is never 0. "constant" is v throughout, regardless of the span. "cosine" falls from v
      to 0. "warmup" rises linearly from 1e-6 to v and stays there. "step" divides v by 10 after each of `parts` - 1
      equal parts of S and keeps the last value.
    - span: S, in updates.
    - hard_off: exactly 0 from update S on, for every kind.
    """

    kind: str
    peak: float
    span: int
    hard_off: bool = False
    parts: int = 4

    def __call__(self, t: int) -> float:
        """Return the strength at update `t`."""
        if self.peak == 0 or (self.hard_off and t >= self.span):
            return 0.0
        match self.kind:
            case "one_cycle":
                return self._one_cycle(t)
            case "cosine":
                return _mix(self.peak, 0.0, min(t / self.span, 1.0))
            case "warmup":
                return WARMUP_START + (self.peak - WARMUP_START) * min(t / self.span, 1.0)
            case "step":
                return self.peak / 10 ** min(t * self.parts // self.span, self.parts - 1)
            case _:
                return self.peak

    def _one_cycle(self, t: int) -> float:
        top = math.floor(RISE * self.span)
        if t < top:
            return _mix(self.peak / 25, self.peak, t / top)
        if t < self.span:
            return _mix(self.peak, self.peak / 250_000, (t - top) / (self.span - top))
        return self.peak / 250_000


def _mix(start: float, end: float, share: float) -> float:
    """Return the value at a fraction `share` of half a cosine from `start` to `end`."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def span_in_updates(span: float, total: int, *, key: str) -> int:
    """Convert a span to updates: up to 1 it is a share of the run's `total` updates, above 1 a number of updates.

    Raises `ConfigError` that names the setting `method.<key>` for any other span.
    """
    if span <= 0 or (span > 1 and span != int(span)):
        raise ConfigError(f"method.{key} is {span}; give a share of the run in (0, 1], or a whole number of updates")
    return max(1, math.floor(span * total + 1e-9)) if span <= 1 else int(span)
