"""Checks of hyperparameters that methods share; each names the key in its error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustlab.core.errors import ConfigError


def choose(key: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise `ConfigError` unless `method.<key>` has one of the values it can have."""
    if value not in choices:
        raise ConfigError(f"method.{key} is {value!r}; it must be one of {', '.join(map(str, choices))}")


def at_least(key: str, value: float, least: float, *, above: bool = False) -> None:
    """Raise `ConfigError` unless `method.<key>` is at least (or, with `above`, more than) `least`."""
    if value < least or (above and value == least):
        raise ConfigError(f"method.{key} is {value}; it must be {'above' if above else 'at least'} {least}")


def within(key: str, value: float, low: float, high: float, *, above: bool = False, below: bool = False) -> None:
    """Raise `ConfigError` unless `method.<key>` lies in [low, high], with `above` and `below` without its ends."""
    if not low <= value <= high or (above and value == low) or (below and value == high):
        left, right = "(" if above else "[", ")" if below else "]"
        raise ConfigError(f"method.{key} is {value}; it must lie in {left}{low:g}, {high:g}{right}")


MEASURES = ("neurons", "flops", "parameters")
"""What a share to remove can be taken of."""


def target_problem(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a pruning target that names more than one of `MEASURES`, or None."""
    given = [f"{name}={values[name]}" for name in MEASURES if values.get(name) is not None]
    if len(given) < 2:
        return None
    return (
        f"method.target: {' and '.join(given)} name {len(given)} targets; give exactly one of {', '.join(MEASURES)} "
        "and set the others to null"
    )


def floor_problem(floor: int | None, *, min_width: int, enabled: bool) -> str | None:
    """Return what is wrong with a floor of live units beside the settings of surgery, or None."""
    if floor is None:
        return None
    if floor < min_width:
        return (
            f"method.reg.floor: {floor} is below method.surgery.min_width={min_width}; no set is cut below min_width, "
            "so its penalty has to stop there or earlier: raise the floor, or lower min_width"
        )
    if not enabled:
        return (
            "method.reg.floor: counts live units, and with method.surgery.enabled=false dead units stay among them; "
            "set method.surgery.enabled=true, or method.reg.floor=null"
        )
    return None
