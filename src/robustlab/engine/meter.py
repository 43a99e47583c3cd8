"""Average the scalars of training steps: kept on the device, read once per interval, checked for NaN when read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustlab.core.errors import NumericalError
from robustlab.core.runtime import Runtime


class Meter:
    """Collects the scalars of each step. Only `read` synchronises with the device.

    The steps of an unfinished interval and the sums of an unfinished epoch are part of the run's state, so that a
    resumed run logs exactly the same rows as an uninterrupted one.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._fresh: list[Mapping[str, Tensor]] = []
        self._interval: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._first_step = 0

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add the detached scalars of one step."""
        self._fresh.append(scalars)

    def read(self) -> None:
        """Fetch the pending scalars in one transfer. Raises `NumericalError` that names the step of a NaN."""
        if not self._fresh:
            return
        flat = torch.stack([value.float() for scalars in self._fresh for value in scalars.values()])
        values = iter(self.runtime.mean_over_ranks(flat).tolist())
        for scalars in self._fresh:
            step = self._first_step + len(self._interval)
            row = {name: next(values) for name in scalars}
            for name, value in row.items():
                if value != value or value in (float("inf"), float("-inf")):
                    raise NumericalError(
                        f"{name} became {value} in global step {step}; the last good checkpoint is kept. Lower "
                        "optimizer.lr, set trainer.clip_norm, or use trainer.precision=fp32, and run the command again"
                    )
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1
            self._interval.append(row)
        self._fresh = []

    def interval(self) -> dict[str, float]:
        """Read, then return the means since the last call."""
        self.read()
        means: dict[str, float] = {}
        for name in {name: None for row in self._interval for name in row}:
            values = [row[name] for row in self._interval if name in row]
            means[name] = sum(values) / len(values)
        self._first_step += len(self._interval)
        self._interval = []
        return means

    def epoch(self) -> dict[str, float]:
        """Read, then return the means over the epoch and start the next one."""
        self.read()
        means = {name: self._sums[name] / self._counts[name] for name in self._sums}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Read, then return the state as plain floats."""
        self.read()
        return {
            "interval": self._interval,
            "sums": dict(self._sums),
            "counts": dict(self._counts),
            "first_step": self._first_step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self._fresh = []
        self._interval = [dict(row) for row in state["interval"]]
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self._first_step = state["first_step"]
