"""Check groups with known keys, key by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from robustlab.config.kinds import MISSING, Kind, is_node
from robustlab.config.wording import RENAMED, REPLACED, did_you_mean, listed, show

SPECIAL_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})


@dataclass(frozen=True)
class Field:
    """One named setting of a `Record`, or one argument of a function. `kind` is a callable, so records may nest."""

    kind: Callable[[], Kind]
    required: bool


@dataclass(frozen=True)
class Record(Kind):
    """A group with known keys. `open`: other keys are allowed too. `noun`: what messages call a key."""

    shape: ClassVar[str] = "group"
    name: str
    fields: Mapping[str, Field]
    open: bool = False
    noun: str = "key"

    def problems(self, value: Any, where: str) -> Iterator[str]:
        """Yield the same as `check`, but skip objects made by a `_target_`, unless `_target_` is a field."""
        if value != MISSING and ("_target_" in self.fields or not is_node(value)):
            yield from self.check(value, where)

    def check(
        self, value: Any, where: str, *, given: frozenset[str] = frozenset(), partial: bool = False
    ) -> Iterator[str]:
        """Yield the problems of a group. `given`: keys supplied from elsewhere; `partial`: missing keys come later."""
        if not isinstance(value, Mapping):
            yield f"{where}: expected {self}, got {show(value)}"
            return
        prefix = f"{where}." if where else ""
        for key, item in value.items():
            if key in self.fields:
                yield from self.fields[key].kind().problems(item, f"{prefix}{key}")
            elif not self.open and key not in SPECIAL_KEYS:
                known = [name for name in self.fields if name not in given]
                hint = did_you_mean(str(key), known) or listed(known)
                old = RENAMED.get(f"{prefix}{key}")
                if old is not None and old.partition(".")[2].partition(".")[0] in self.fields:
                    hint = f"; write {old}={show(item)} instead"
                successor, advice = REPLACED.get(f"{prefix}{key}", ("", ""))
                if successor in self.fields:
                    hint = f"; {advice}"
                yield f"{prefix}{key}: {self.name} has no {self.noun} '{key}'{hint}"
        if not partial:
            for key, field in self.fields.items():
                if field.required and key not in value and key not in given:
                    yield f"{prefix}{key}: missing, {self.name} needs it; expected {field.kind()}"

    def __str__(self) -> str:
        return f"a group with the keys {', '.join(self.fields)}"


@dataclass(frozen=True)
class Node(Kind):
    """A group that names the object it makes with `_target_`."""

    def problems(self, value: Any, where: str) -> Iterator[str]:
        """Yield a message unless `value` has a `_target_`."""
        if value != MISSING and not is_node(value):
            yield f"{where}: expected {self}, got {show(value)}"

    def __str__(self) -> str:
        return "a group with a _target_"
