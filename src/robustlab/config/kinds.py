"""Kinds of values that a setting may take, and messages for values that do not fit.

A kind is made from a type annotation, read either from source (`signature`) or from a class at hand (`from_type`).
Values are plain: None, bool, int, float, str, list, dict. A dict with `_target_` stands for an object and fits
everywhere; its contents are checked separately.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from robustlab.config.wording import did_you_mean, show

MISSING = "???"
"""A required value that is not set, or a value that did not resolve: reported elsewhere, so it fits every kind."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for `Annotated`; `above` and `below` exclude the bound, `low` and `high` include it."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether `value` lies within the bounds."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return the bounds as text, e.g. ">= 0 and < 1"."""
        bounds = ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
        return " and ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)


class Kind:
    """Any value: unknown types are not refused. `shape`: "list" or "group" if all its values have that shape."""

    shape: ClassVar[str] = ""

    def fits(self, value: Any) -> bool:
        """Return whether `value` is of this kind."""
        return next(self.problems(value, ""), None) is None

    def problems(self, value: Any, where: str) -> Iterator[str]:
        """Yield one message per problem of `value`, located at the dotted key `where`."""
        if value != MISSING and not is_node(value):
            yield from self._problems(value, where)

    def _problems(self, value: Any, where: str) -> Iterator[str]:
        yield from ()

    def __str__(self) -> str:
        """Return a description that can follow "expected"."""
        return "any value"


ANYTHING = Kind()


@dataclass(frozen=True)
class Scalar(Kind):
    """One of int, float (which accepts an int), bool, str, None."""

    type: type | None
    limits: tuple[Range, ...] = ()

    def _problems(self, value: Any, where: str) -> Iterator[str]:
        if not self._has_type(value) or not all(limit.holds(value) for limit in self.limits):
            yield f"{where}: expected {self}, got {show(value)}"

    def _has_type(self, value: Any) -> bool:
        if self.type is None:
            return value is None
        if self.type is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        return type(value) is self.type

    def __str__(self) -> str:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", None: "null"}
        return " ".join((names[self.type], *map(str, self.limits)))


@dataclass(frozen=True)
class Pattern(Kind):
    """Text that fully matches a regular expression, described by `words`."""

    pattern: str
    words: str

    def _problems(self, value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, str) or re.fullmatch(self.pattern, value, re.DOTALL) is None:
            yield f"{where}: expected {self}, got {show(value)}"

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few values (`Literal`)."""

    values: tuple[Any, ...]

    def _problems(self, value: Any, where: str) -> Iterator[str]:
        if not any(type(value) is type(option) and value == option for option in self.values):
            yield f"{where}: expected {self}, got {show(value)}{did_you_mean(str(value), map(str, self.values))}"

    def __str__(self) -> str:
        return "one of " + ", ".join(value if isinstance(value, str) else show(value) for value in self.values)


@dataclass(frozen=True)
class Either(Kind):
    """Any of several kinds (`Union`, `Optional`)."""

    kinds: tuple[Kind, ...]

    def _problems(self, value: Any, where: str) -> Iterator[str]:
        if any(kind.fits(value) for kind in self.kinds):
            return
        of_its_sort = [kind for kind in self.kinds if kind.shape and kind.shape == _shape(value)]
        if len(of_its_sort) == 1:
            yield from of_its_sort[0].problems(value, where)
        else:
            yield f"{where}: expected {self}, got {show(value)}{self._nearest(value)}"

    def _nearest(self, value: Any) -> str:
        return did_you_mean(
            str(value), (str(x) for kind in self.kinds if isinstance(kind, Choice) for x in kind.values)
        )

    def __str__(self) -> str:
        plain = [kind for kind in self.kinds if not isinstance(kind, Thing)]
        return " or ".join(str(kind) for kind in plain or self.kinds)


@dataclass(frozen=True)
class Items(Kind):
    """A list; `kinds` holds one kind per position if the length is fixed, else one for all items."""

    shape: ClassVar[str] = "list"
    kinds: tuple[Kind, ...]
    fixed: bool = False

    def _problems(self, value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, list | tuple) or (self.fixed and len(value) != len(self.kinds)):
            yield f"{where}: expected {self}, got {show(value)}"
            return
        kinds = self.kinds if self.fixed else self.kinds * len(value)
        for index, (kind, item) in enumerate(zip(kinds, value, strict=True)):
            yield from kind.problems(item, f"{where}[{index}]")

    def __str__(self) -> str:
        if self.fixed:
            return f"a list of {len(self.kinds)} ({', '.join(map(str, self.kinds))})"
        return "a list" if self.kinds[0] is ANYTHING else f"a list, each {self.kinds[0]}"


@dataclass(frozen=True)
class Table(Kind):
    """A group with arbitrary keys, optionally of one kind, and values of one kind."""

    shape: ClassVar[str] = "group"
    kind: Kind
    keys: Kind = ANYTHING

    def _problems(self, value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{where}: expected {self}, got {show(value)}"
            return
        for key, item in value.items():
            yield from self.keys.problems(key, f"{where}.{key}")
            yield from self.kind.problems(item, f"{where}.{key}")

    def __str__(self) -> str:
        return "a group of keys"


@dataclass(frozen=True)
class Thing(Kind):
    """An object that only a `_target_` can make."""

    name: str

    def _problems(self, value: Any, where: str) -> Iterator[str]:
        yield f"{where}: expected {self}, got {show(value)}"

    def __str__(self) -> str:
        return f"a _target_ that makes a {self.name}"


def _shape(value: Any) -> str:
    return "group" if isinstance(value, Mapping) else "list" if isinstance(value, list | tuple) else ""


def is_node(value: Any) -> bool:
    """Return whether `value` is a group with `_target_`."""
    return isinstance(value, Mapping) and "_target_" in value


def tuple_kind(kinds: Sequence[Kind], repeated: bool) -> Items:
    """Return the kind of `tuple[X, ...]` (`repeated`; empty `kinds` means anything) or of `tuple[X, Y]`."""
    return Items(tuple(kinds) or (ANYTHING,)) if repeated else Items(tuple(kinds), fixed=True)
