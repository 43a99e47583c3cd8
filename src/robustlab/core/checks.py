"""Check hyperparameters; every error names the key."""

from __future__ import annotations

from collections.abc import Sequence
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
