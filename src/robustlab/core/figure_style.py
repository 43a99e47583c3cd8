"""Style of lines in figures: distinguishable by colour and dashes, even in print and greyscale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOURS = (
    "#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#333333", "#b5a42c", "#64b5cd",
)  # fmt: skip
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = "osD^vP*X<>"


def look(number: int) -> dict[str, Any]:
    """Return colour, dashes and marker of the line with this number; 40 lines differ in colour or dashes."""
    dashes = DASHES[(number + number // (2 * len(COLOURS))) % len(DASHES)]
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": dashes,
        "marker": MARKERS[number % len(MARKERS)],
    }


def draw_means(axis: Any, groups: Sequence[Sequence[tuple[float, float]]], number: int) -> Any:
    """Draw a line through the means of groups of (x, y), in order of x, and return what the legend shows.

    Bars in both directions go from the least to the largest value of a group. number: of the line, see `look`.
    """
    points = sorted((tuple(zip(*group, strict=True)) for group in groups), key=lambda point: _mean(point[0]))
    xs, ys = ([point[index] for point in points] for index in (0, 1))
    return axis.errorbar(
        [_mean(one) for one in xs], [_mean(one) for one in ys], xerr=_bars(xs), yerr=_bars(ys), **look(number),
        markersize=4, capsize=2, linewidth=1.2,
    )  # fmt: skip


def draw_level(axis: Any, values: Sequence[float], number: int) -> Any:
    """Draw the mean of values as a horizontal line, in a band that spans them; return what the legend shows.

    number: of the line, which tells several levels apart.
    """
    axis.axhspan(min(values), max(values), color="black", alpha=0.1, linewidth=0)
    return axis.axhline(_mean(values), color="black", linestyle=("--", "-.", ":")[number % 3])


def tidy(axis: Any) -> None:
    """Put a light grid behind the lines, and leave the frame open above and to the right."""
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def legend_beside(figure: Any, handles: dict[str, Any]) -> None:
    """Put one legend, of handles by label, to the right of all axes of a figure with constrained layout."""
    size = 9 if len(handles) <= 16 else 7
    figure.legend(
        list(handles.values()), list(handles), loc="outside right upper", frameon=False, fontsize=size, handlelength=3
    )


def legend_width(labels: Any) -> float:
    """Return about how many inches the legend needs."""
    return 0.7 + 0.075 * max((len(label) for label in labels), default=0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _bars(groups: Sequence[Sequence[float]]) -> list[list[float]]:
    # Rounding can put the mean of equal values outside of them, and a bar of negative length is an error.
    below = [max(0.0, _mean(one) - min(one)) for one in groups]
    return [below, [max(0.0, max(one) - _mean(one)) for one in groups]]


def save(figure: Any, path: Path) -> None:
    """Write a figure to `path`, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
