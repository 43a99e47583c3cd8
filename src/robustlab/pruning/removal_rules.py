"""Settings of pruning that exclude each other; known without torch, so that a configuration is checked by them, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURES = ("neurons", "flops", "parameters")
"""Measures of network size that a pruning target can refer to."""


def target_problem(values: Mapping[str, Any]) -> str | None:
    """Return a message if a pruning target names more than one of `MEASURES`, else None."""
    given = [f"{name}={values[name]}" for name in MEASURES if values.get(name) is not None]
    if len(given) < 2:
        return None
    return (
        f"method.target: {' and '.join(given)} name {len(given)} targets; give exactly one of {', '.join(MEASURES)} "
        "and set the others to null"
    )


def floor_problem(floor: int | None, *, min_width: int, enabled: bool) -> str | None:
    """Return a message if a floor of live units contradicts the settings of surgery, else None."""
    if floor is None:
        return None
    if floor < min_width:
        return (
            f"method.reg.floor: {floor} is below method.surgery.min_width={min_width}; no set is cut below min_width, "
            "so its penalty has to stop there or earlier: raise the floor or lower min_width"
        )
    if not enabled:
        return (
            "method.reg.floor: counts live units, but with method.surgery.enabled=false dead units are not removed; "
            "set method.surgery.enabled=true or method.reg.floor=null"
        )
    return None
