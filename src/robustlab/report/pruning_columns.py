"""Add columns for pruning runs to a table: sparsities, FLOPs, and training speed-up."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustlab.config.method_labels import reference_of, references
from robustlab.config.stored_config import read_config, read_starts
from robustlab.report.collect import Column, Group, Report, Run
from robustlab.report.plots import curve
from robustlab.report.run_settings import flat_settings
from robustlab.report.statistics import estimate

OVERHEAD_NAMES = ("time/pruning_seconds", "time/final_pruning_seconds")
"""Seconds of an epoch's checks and surgery, in `timing.jsonl`: within the training time, and after the last step."""


METRICS = {
    "pruning/neuron_sparsity": Column("neuron sparsity", "neuron_sparsity"),
    "pruning/weight_sparsity": Column("weight sparsity", "weight_sparsity"),
    "pruning/flops_ratio": Column("FLOPs, paper's count", "flops_ratio"),
    "pruning/flops_ratio_physical": Column("FLOPs, physical", "flops_ratio_physical"),
}
SPEED_UP = Column("training speed-up", "speed_up", share=False)
SPEED_UP_NET = Column("without overheads", "speed_up_without_overheads", share=False)
COLUMNS = (*METRICS.values(), SPEED_UP, SPEED_UP_NET)
SPEED_UP_NOTE = (
    "training speed-up: seconds of the training steps of dense runs with the same settings on the same hardware over "
    "those of the run; with its checks and surgery, and without"
)


def with_pruning(report: Report) -> Report:
    """Return the report with further columns about pruning, as many as its runs have numbers for; often none.

    Sparsities and FLOPs are taken at the epoch that the report's rule selects. Raises `ConfigError` if the metrics of
    a run are damaged.
    """
    dense = _dense_seconds([entry.group for entry in report.entries])
    entries, there = [], set()
    for entry in report.entries:
        values: dict[Column, list[float]] = {}
        for run in entry.group.runs.values():
            of_run = _metrics(run, report.rule)
            if not reference_of(entry.group.method):
                of_run |= _speed_ups(run, dense) if of_run else {}
                there |= of_run.keys()
            for column, value in of_run.items():
                values.setdefault(column, []).append(value)
        entries.append(replace(entry, further={column: estimate(found) for column, found in values.items()}))
    notes = [*report.notes, SPEED_UP_NOTE] if SPEED_UP in there else report.notes
    columns = tuple(column for column in COLUMNS if column in there)
    return replace(report, entries=entries, notes=notes, columns=columns)


def comparable(run: Run) -> str:
    """Return what two runs must share for their accuracies to differ by the method alone: all its other settings."""
    settings = flat_settings(read_config(run.folder))
    return repr(sorted((key, value) for key, value in settings.items() if not key.startswith("method.")))


def _metrics(run: Run, rule: str) -> dict[Column, float]:
    """Return the values at the epoch that the rule selects, or at the end for rules that select none."""
    epoch = run.results["selection"].get(rule, {}).get("epoch") if rule != "last" else None
    found = {}
    for metric, column in METRICS.items():
        value = run.value(metric, "last")
        if value is not None and epoch is not None:
            points = curve(run, metric)
            at_epoch = points[points[:, 0] == epoch + 1, 1]
            value = float(at_epoch[0]) if len(at_epoch) else None
        if value is not None:
            found[column] = value
    return found


def _speed_ups(run: Run, dense: Mapping[str, float]) -> dict[Column, float]:
    """Return the speed-ups over dense training, if there is such a run on the same hardware."""
    seconds, overheads = _seconds(run), _overheads(run.folder)
    reference = dense.get(_place(run) or "")
    if reference is None or seconds is None or overheads is None:
        return {}
    within, after = overheads
    return {SPEED_UP: reference / (seconds + after), SPEED_UP_NET: reference / (seconds - within)}


def _dense_seconds(groups: Sequence[Group]) -> dict[str, float]:
    """Return the mean training seconds of dense runs by settings and hardware; the last of `references` goes first."""
    found: dict[str, float] = {}
    for method in references():
        times: dict[str, list[float]] = {}
        for run in (run for group in groups if group.method == method for run in group.runs.values()):
            place, seconds = _place(run), _seconds(run)
            if place is not None and seconds is not None:
                times.setdefault(place, []).append(seconds)
        found |= {place: statistics.fmean(values) for place, values in times.items()}
    return found


def _seconds(run: Run) -> float | None:
    seconds = run.results.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) and seconds > 0 else None


def _place(run: Run) -> str | None:
    """Return settings and hardware in one word; None where a run changed machines, or its record cannot be read."""
    try:
        starts = read_starts(run.folder)
        machines = {
            repr([start["hardware"].get(key) for key in ("cpu", "torch_threads", "gpus")])
            + repr(start["config"]["trainer"].get("device"))
            for start in starts
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return f"{machines.pop()} {comparable(run)}" if len(machines) == 1 else None


def _overheads(folder: Path) -> tuple[float, float] | None:
    """Return the seconds of checks and surgery between the training steps, and after the last of them."""
    try:
        rows: list[Mapping[str, Any]] = [
            json.loads(line) for line in (folder / "timing.jsonl").read_bytes().splitlines()
        ]
        within, after = (sum(float(row.get(name, 0.0)) for row in rows) for name in OVERHEAD_NAMES)
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return within, after
