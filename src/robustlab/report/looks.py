"""How lines look in the pictures of runs: told apart by colour and by dashes, also in print and in grey."""

from __future__ import annotations

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


def legend_beside(figure: Any, handles: dict[str, Any]) -> None:
    """Put one legend, of handles by label, to the right of all axes of a figure with constrained layout."""
    size = 9 if len(handles) <= 16 else 7
    figure.legend(
        list(handles.values()), list(handles), loc="outside right upper", frameon=False, fontsize=size, handlelength=3
    )


def legend_width(labels: Any) -> float:
    """Return about how many inches the legend needs."""
    return 0.7 + 0.075 * max((len(label) for label in labels), default=0)
