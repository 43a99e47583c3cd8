"""Estimate how long runs will take from the seconds per step of finished runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlab.sweeps.points import Point


@dataclass(frozen=True)
class Estimate:
    """The total `seconds` of all points with an estimate; `known` and `unknown`: numbers of points with and without."""

    seconds: float
    known: int
    unknown: int


@dataclass(frozen=True)
class _Pace:
    seconds_per_step: float
    steps_per_epoch: float

    def seconds(self, point: Point) -> float:
        trainer = point.settings["trainer"]
        steps = trainer["epochs"] * self.steps_per_epoch
        return self.seconds_per_step * min(steps, trainer["max_steps"] or steps)


def estimate(points: Iterable[Point], outputs: Path) -> Estimate:
    """Estimate points from earlier runs below `outputs`: other seeds of the same settings, or else runs of the same
    method, data set and model. Differences in hardware are ignored.
    """
    exact, similar = _paces(outputs)
    total, known, unknown = 0.0, 0, 0
    for point in points:
        settings = point.settings
        pace = exact.get(Path(point.run_dir).parent.name) or similar.get(
            (settings["method"]["name"], settings["dataset"]["name"], settings["model"]["name"])
        )
        total += pace.seconds(point) if pace else 0.0
        known += pace is not None
        unknown += pace is None
    return Estimate(total, known, unknown)


def _paces(outputs: Path) -> tuple[dict[str, _Pace], dict[tuple[str, str, str], _Pace]]:
    exact: dict[str, _Pace] = {}
    similar: dict[tuple[str, str, str], _Pace] = {}
    for path in sorted(outputs.glob("*/*/results.json")):
        results = _read(path)
        if results is not None:
            pace = _Pace(results["seconds"] / results["steps"], results["steps"] / results["epochs"])
            exact[results["run_name"]] = similar[results["method"], results["dataset"], results["model"]] = pace
    return exact, similar


def _read(path: Path) -> Mapping[str, Any] | None:
    """Return results from which a pace follows; None for others."""
    try:
        results = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    needed = ("run_name", "method", "dataset", "model", "seconds", "steps", "epochs")
    known = isinstance(results, dict) and all(results.get(name) for name in needed)
    return results if known else None
