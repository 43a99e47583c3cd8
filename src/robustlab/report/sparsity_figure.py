"""Accuracy against sparsity, one panel per data set, noise and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlab.config.method_labels import reference_of
from robustlab.config.stored_config import read_config
from robustlab.core.errors import ConfigError
from robustlab.core.figure_style import draw_level, draw_means, legend_beside, legend_width, save, tidy
from robustlab.report.collect import Group
from robustlab.report.run_settings import flat_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPARSITIES = {
    "neuron": ("pruning/neuron_sparsity", "neuron sparsity, %"),
    "weight": ("pruning/weight_sparsity", "weight sparsity, %"),
    "flops": ("pruning/flops_ratio_physical", "FLOPs of a prediction saved, %"),
}
"""Sparsity measures to draw accuracy against -> metric and axis label."""
KNOBS = ("method.reg.peak", "method.target.neurons", "method.target.flops", "method.target.parameters")
"""Settings that control how much is removed; a line is a sweep over them."""


@dataclass
class Line:
    """Groups of runs of one method that differ only in how much they remove."""

    method: str
    rest: Mapping[str, Any]
    groups: list[Group] = field(default_factory=list)
    suffix: str = ""

    @property
    def label(self) -> str:
        """The method's display name, and what distinguishes this line from others of the same method."""
        return self.groups[0].method_label + (f" ({self.suffix})" if self.suffix else "")


def accuracy_against_sparsity(
    groups: Sequence[Group], path: Path, *, sparsity: str = "neuron", metric: str = "test/accuracy"
) -> None:
    """Draw accuracy at the last epoch against sparsity to `path`; see `sparsity_figure`."""
    save(sparsity_figure(groups, sparsity=sparsity, metric=metric), path)


def sparsity_figure(groups: Sequence[Group], *, sparsity: str = "neuron", metric: str = "test/accuracy") -> Figure:
    """Return a figure of accuracy at the last epoch against sparsity, one panel per data set, noise and model.

    A point is a group of seeds: the mean in both directions, with bars from minimum to maximum. A line joins the groups
    of a method that differ only in `KNOBS`, and looks the same in all panels. Dense training is a horizontal line.

    - sparsity: "neuron", "weight" or "flops".

    Raises `ConfigError` if no run has a sparsity.
    """
    if sparsity not in SPARSITIES:
        raise ConfigError(f"sparsity is {sparsity!r}; it must be one of {', '.join(SPARSITIES)}")
    name, label = SPARSITIES[sparsity]
    panels: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        panels.setdefault(group.setting, []).append(group)
    lines = {
        setting: lines_of(found)
        for setting, found in panels.items()
        if any(_values(group, name, metric) for group in found if not reference_of(group.method))
    }
    if not lines:
        raise ConfigError(f"no finished run has {name} and {metric}; train one that prunes, e.g. method=demp")
    scale, unit = (100.0, ", %") if metric.rsplit("/", 1)[-1].startswith("accuracy") else (1.0, "")
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(line.label for found in lines.values() for line in found))
    size = (4.6 * len(lines) + legend_width(labels), max(4.0, 0.21 * len(labels) + 0.6))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(lines), squeeze=False)
    handles: dict[str, Any] = {}
    for axis, (setting, found) in zip(axes[0], lines.items(), strict=True):
        for line in found:
            drawn = _draw(axis, line, name, metric, scale, labels.index(line.label))
            if drawn is not None:
                handles.setdefault(line.label, drawn)
        axis.set(xlabel=label, ylabel=f"{metric}{unit}", title=", ".join(setting))
        tidy(axis)
    legend_beside(figure, handles)
    return figure


def lines_of(groups: Sequence[Group]) -> list[Line]:
    """Return the lines formed by the groups of one panel; dense ones come last."""
    lines: dict[tuple[str, str], Line] = {}
    for group in groups:
        settings = flat_settings(read_config(next(iter(group.runs.values())).folder))
        rest = {key: value for key, value in settings.items() if key not in KNOBS}
        lines.setdefault((group.method, repr(sorted(rest.items()))), Line(group.method, rest)).groups.append(group)
    for line in lines.values():
        others = [other.rest for other in lines.values() if other.method == line.method and other is not line]
        differing = [key for key, value in line.rest.items() if any(rest.get(key) != value for rest in others)]
        named = [key for key in differing if key.endswith(".name")] or differing
        line.suffix = ", ".join(
            f"{key.removeprefix('method.').removesuffix('.name')} {line.rest[key]}" for key in named[:3]
        )
    return sorted(lines.values(), key=lambda line: reference_of(line.method) > 0)


def _values(group: Group, x_name: str, y_name: str) -> list[tuple[float, float]]:
    pairs = [(run.value(x_name, "last"), run.value(y_name, "last")) for run in group.runs.values()]
    left = x_name.endswith("_physical")  # a remaining share, unlike the others, which are removed shares
    return [(1 - x if left else x, y) for x, y in pairs if x is not None and y is not None]


def _draw(axis: Any, line: Line, x_name: str, y_name: str, scale: float, number: int) -> Any:
    """Draw one line: points with bars, or for a dense method its mean as a horizontal line in a band.

    Return its legend handle; None if no run has the values.
    """
    if reference_of(line.method):
        accuracies = [
            scale * value
            for group in line.groups
            for run in group.runs.values()
            if (value := run.value(y_name, "last")) is not None
        ]
        return draw_level(axis, accuracies, number) if accuracies else None
    pairs = [_values(group, x_name, y_name) for group in line.groups]
    groups = [[(100 * x, scale * y) for x, y in group] for group in pairs if group]
    return draw_means(axis, groups, number) if groups else None
