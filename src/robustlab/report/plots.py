"""Learning curves of finished runs: a metric over epochs, mean and range over seeds, one panel per setting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustlab.core.errors import ConfigError
from robustlab.core.figure_style import legend_beside, legend_width, look, tidy
from robustlab.metrics.metric_names import is_group_accuracy
from robustlab.report.collect import Group, Run, find_runs, group_runs
from robustlab.tracking.jsonl import decode_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS_IN_A_ROW = 3


def curve(run: Run, metric: str) -> np.ndarray:
    """Return float64 [n, 2]: the epoch (counted over all stages, from 1) and the metric, where it was measured.

    Raises ConfigError if the run's `metrics.jsonl` is missing or damaged.
    """
    points = []
    path = run.folder / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        measured = [row for row in rows if row["split"] == "epoch"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = "there is none" if isinstance(error, FileNotFoundError) else f"damaged: {error}"
        raise ConfigError(f"{path} cannot be read ({reason}); move the run elsewhere to draw the others") from error
    for epoch, row in enumerate(measured, start=1):
        value = decode_number(row.get(metric))
        if isinstance(value, int | float):
            points.append((epoch, float(value)))
    return np.array(points, dtype=np.float64).reshape(-1, 2)


@dataclass(frozen=True)
class _Line:
    """epochs: float64 [n]. values: float64 [seeds, n]."""

    label: str
    epochs: np.ndarray
    values: np.ndarray


def plot_curves(roots: Path | Sequence[Path], out: Path, *, metric: str = "test/accuracy") -> None:
    """Draw every finished run below folders to the file `out` (its suffix says the format); see `curves_figure`."""
    figure = curves_figure(roots, metric=metric)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=140)


def curves_figure(roots: Path | Sequence[Path], *, metric: str = "test/accuracy") -> Figure:
    """Return a figure of the learning curves of every finished run below some folders.

    There is one panel per data set, noise and model; a method looks the same in all of them. The band spans minimum to
    maximum over seeds; a run with one measurement is a point with a bar.

    Raises ConfigError if no run has the metric.
    """
    panels = _panels(group_runs(find_runs(roots)[0]), metric)
    if not panels:
        places = str(roots) if isinstance(roots, Path) else ", ".join(map(str, roots))
        raise ConfigError(
            f"no finished run below {places} has the metric {metric}; see a run's metrics.jsonl for names"
        )
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(line.label for lines in panels.values() for line in lines))
    named = {label: f"{label} ({_seeds(panels, label)})" for label in labels}
    columns = min(len(panels), PANELS_IN_A_ROW)
    rows = -(-len(panels) // columns)
    height = max(3.6 * rows, 0.21 * len(labels) + 0.6)
    figure = Figure(figsize=(4.6 * columns + legend_width(named.values()), height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    handles: dict[str, Any] = {}
    for axis, (setting, lines) in zip(axes, panels.items(), strict=False):
        for line in lines:
            shift = 0.05 * (labels.index(line.label) - (len(labels) - 1) / 2)
            drawn = _draw(axis, line, labels.index(line.label), scale=_scale(metric), shift=shift)
            handles.setdefault(line.label, drawn)
        axis.set(xlabel="epoch", ylabel=metric + (", %" if _scale(metric) > 1 else ""))
        axis.set_title(", ".join(setting), fontsize=10)
        _tidy_epochs(axis, lines)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    legend_beside(figure, {named[label]: handles[label] for label in labels})
    return figure


def _seeds(panels: Mapping[Any, Sequence[_Line]], label: str) -> str:
    """Return how many seeds the lines with a label have, e.g. "3 seeds" or "1 to 3 seeds"."""
    counts = sorted({len(line.values) for lines in panels.values() for line in lines if line.label == label})
    noun = "seed" if counts[-1] == 1 else "seeds"
    return f"{counts[0]} {noun}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {noun}"


def _panels(groups: Sequence[Group], metric: str) -> dict[tuple[str, str, str], list[_Line]]:
    panels: dict[tuple[str, str, str], list[_Line]] = {}
    for group in groups:
        curves = [points for run in group.runs.values() if len(points := curve(run, metric))]
        if curves:
            length = min(len(points) for points in curves)
            values = np.stack([points[:length, 1] for points in curves])
            name = group.method_label + (f", {group.variant}" if group.variant else "")
            panels.setdefault(group.setting, []).append(_Line(name, curves[0][:length, 0], values))
    return panels


def _draw(axis: Any, line: _Line, number: int, *, scale: float, shift: float) -> Any:
    """Draw a line with the band of its seeds; return what the legend shows.

    shift: of a single point along the axis, since points of one epoch would lie on each other.
    """
    style, values = look(number), scale * line.values
    low, middle, high = values.min(0), values.mean(0), values.max(0)
    if len(line.epochs) == 1:
        bars = [middle - low, high - middle]
        style |= {"linestyle": "none", "markersize": 5, "capsize": 3}
        return axis.errorbar(line.epochs + min(max(shift, -0.4), 0.4), middle, yerr=bars, **style)
    (drawn,) = axis.plot(line.epochs, middle, **style | {"marker": None}, linewidth=1.6)
    axis.fill_between(line.epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    return drawn


def _tidy_epochs(axis: Any, lines: Sequence[_Line]) -> None:
    from matplotlib.ticker import MaxNLocator

    last = max(line.epochs[-1] for line in lines)
    if last == 1:
        axis.set_xlim(0.5, 1.5)
        axis.set_xticks([1])
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    tidy(axis)


def _scale(metric: str) -> float:
    """Return 100 for shares, which are shown in per cent."""
    is_share = metric.rsplit("/", 1)[-1].startswith("accuracy") or is_group_accuracy(metric)
    return 100.0 if is_share else 1.0
