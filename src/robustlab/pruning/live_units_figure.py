"""Read the pruning events of a run and draw the live units per layer over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustlab.core.errors import ConfigError
from robustlab.core.figure_style import save, tidy

EVENTS_FILE = "pruning.json"
"""File to which a pruning run writes its events: {"events": [...], ...}."""
LEGEND_ROWS = 30


def live_units_figure(events: Sequence[Mapping[str, Any]], path: Path, *, total_updates: int | None = None) -> None:
    """Draw the live units of each set over time to `path`: stacked counts, and next to them the share of each set.

    Early layers are dark, late ones light; the legend gives the units of each at the start and at the end.

    - events: in chronological order, each with "t" (number of updates so far) and "live" (set -> units, in forward
      order); the first is the start, before anything was removed.
    - total_updates: end of the time axis.
    """
    names = list(events[0]["live"])
    start, end = events[0]["live"], events[-1]["live"]
    steps = [event["t"] for event in events]
    counts = {name: [event["live"][name] for event in events] for name in names}
    if total_updates is not None and total_updates > steps[-1]:
        steps = [*steps, total_updates]
        counts = {name: [*values, values[-1]] for name, values in counts.items()}
    import matplotlib
    from matplotlib.figure import Figure

    columns = -(-len(names) // LEGEND_ROWS)
    colours = matplotlib.colormaps["viridis"]([index / max(1, len(names) - 1) for index in range(len(names))])
    height = max(3.8, 0.17 * -(-len(names) // columns) + 0.8)
    figure = Figure(figsize=(9 + 2.6 * columns, height), layout="constrained")
    stacked, share = figure.subplots(1, 2)
    areas = stacked.stackplot(steps, *counts.values(), colors=colours, step="post", edgecolor="white", linewidth=0.2)
    for name, colour in zip(names, colours, strict=True):
        share.step(steps, [value / start[name] for value in counts[name]], where="post", color=colour)
    stacked.set(xlabel="updates", ylabel="live units", xlim=(steps[0], max(steps[-1], steps[0] + 1)))
    share.set(xlabel="updates", ylabel="share of a layer's units that are live", ylim=(-0.02, 1.02))
    for axis in (stacked, share):
        tidy(axis)
    labels = [f"{name}  {start[name]:,} to {end[name]:,}" for name in names]
    figure.legend(
        areas[::-1], labels[::-1], loc="outside right center", ncols=columns, fontsize=7, frameon=False,
        title=f"all  {sum(start.values()):,} to {sum(end.values()):,}", title_fontsize=8,
    )  # fmt: skip
    save(figure, path)


def read_events(folder: Path) -> dict[str, Any]:
    """Return the pruning events that a run wrote. Raises `ConfigError` if there is no readable file."""
    path = folder / EVENTS_FILE
    if not path.exists():
        raise ConfigError(f"there is no {path}: the run is not finished, or its method removes no units")
    try:
        content = json.loads(path.read_bytes())
        live = [event["live"] for event in content["events"] if int(event["t"]) >= 0]
        whole = bool(live) and all(one.keys() == live[0].keys() for one in live)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if not whole:
        raise ConfigError(f"{path} is damaged (its events do not have the same layers)")
    return content
