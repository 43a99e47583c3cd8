"""Check hyperparameters; every error names the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustlab.core.errors import ConfigError


def choose(key: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise `ConfigError` unless the value of `method.<key>` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"method.{key} is {value!r}; it must be one of {', '.join(map(str, choices))}")


def at_least(key: str, value: float, least: float, *, above: bool = False) -> None:
    """Raise `ConfigError` unless `method.<key>` is at least (or, with `above`, more than) `least`."""
    if value < least or (above and value == least):
        raise ConfigError(f"method.{key} is {value}; it must be {'above' if above else 'at least'} {least}")


def within(key: str, value: float, low: float, high: float, *, above: bool = False, below: bool = False) -> None:
    """Raise `ConfigError` unless `method.<key>` lies in [low, high]; `above` and `below` exclude the respective end."""
    if not low <= value <= high or (above and value == low) or (below and value == high):
        left, right = "(" if above else "[", ")" if below else "]"
        raise ConfigError(f"method.{key} is {value}; it must lie in {left}{low:g}, {high:g}{right}")


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
