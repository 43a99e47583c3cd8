"""Learning curves of finished runs: a metric over epochs, mean and range over seeds, one panel per setting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from robustlab.errors import ConfigError
from robustlab.metrics.names import is_group_accuracy
from robustlab.report.collect import Group, Run, find_runs, group_runs
from robustlab.tracking.jsonl import decode_number
from robustlab.tracking.summary import METHOD_NAMES

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")


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


def plot_curves(root: Path, out: Path, *, metric: str = "test/accuracy") -> None:
    """Draw every finished run below `root` to the file `out` (its suffix says the format).

    The band spans the least and the largest value over seeds. Raises ConfigError if no run has the metric.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels: dict[tuple[str, str, str], list[tuple[Group, np.ndarray, np.ndarray]]] = {}
    for group in group_runs(find_runs(root)[0]):
        curves = [points for run in group.runs.values() if len(points := curve(run, metric))]
        if curves:
            length = min(len(points) for points in curves)
            values = np.stack([points[:length, 1] for points in curves])
            panels.setdefault(group.setting, []).append((group, curves[0][:length, 0], values))
    if not panels:
        raise ConfigError(f"no finished run below {root} has the metric {metric}; see a run's metrics.jsonl for names")
    share = metric.rsplit("/", 1)[-1].startswith("accuracy") or is_group_accuracy(metric)
    scale, unit = (100.0, ", %") if share else (1.0, "")
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.6), squeeze=False, layout="constrained")
    for axis, (setting, lines) in zip(axes[0], panels.items(), strict=True):
        for number, (group, epochs, values) in enumerate(lines):
            colour = COLOURS[number % len(COLOURS)]
            name = METHOD_NAMES.get(group.method, group.method) + (f" [{group.variant}]" if group.variant else "")
            seeds = f" ({len(values)} seed{'s' if len(values) > 1 else ''})"
            axis.plot(epochs, scale * values.mean(0), color=colour, label=name + seeds)
            axis.fill_between(
                epochs, scale * values.min(0), scale * values.max(0), color=colour, alpha=0.2, linewidth=0
            )
        axis.set(xlabel="epoch", ylabel=metric + unit, title=", ".join(setting))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=140)
    plt.close(figure)
