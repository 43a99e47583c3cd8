"""Checks of hyperparameters that methods share; each names the key in its error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustlab.errors import ConfigError


def choose(key: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise `ConfigError` unless `method.<key>` has one of the values it can have."""
    if value not in choices:
        raise ConfigError(f"method.{key} is {value!r}; it must be one of {', '.join(map(str, choices))}")


def at_least(key: str, value: float, least: float, *, above: bool = False) -> None:
    """Raise `ConfigError` unless `method.<key>` is at least (or, with `above`, more than) `least`."""
    if value < least or (above and value == least):
        raise ConfigError(f"method.{key} is {value}; it must be {'above' if above else 'at least'} {least}")


def within(key: str, value: float, low: float, high: float, *, below: bool = False) -> None:
    """Raise `ConfigError` unless `method.<key>` lies in [low, high] (or, with `below`, in [low, high))."""
    if not low <= value <= high or (below and value == high):
        raise ConfigError(f"method.{key} is {value}; it must lie in [{low:g}, {high:g}{')' if below else ']'}")
