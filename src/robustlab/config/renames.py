"""Former names of classes and keys, as `renames.yaml` has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Node:
    """A group of settings that a rearrangement writes in a different way.

    - `old`, `new`: dotted key below the group -> value; together they identify the group and replace each other. If
      several nodes match, the one with the most values wins.
    - `keys`: former dotted key -> today's; applies to values and whole groups.
    - `neutral`: today's dotted keys that had no counterpart -> the value at which they have no effect.
    """

    old: Mapping[str, Any] = field(default_factory=dict)
    new: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    neutral: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """One rearrangement of the code: former name -> the one that replaced it.

    - `modules`, `targets`: dotted names of modules, and of single classes and functions.
    - `nodes`: groups with a `_target_`, wherever they stand.
    - `places`: keys of the whole configuration that have moved.
    - `neutral`: new dotted keys -> the value at which they have no effect.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    places: tuple[Node, ...] = ()
    neutral: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def former_modules(self) -> dict[str, str]:
        """Today's name of each module -> its former one."""
        return {new: old for old, new in self.modules.items()}

    @cached_property
    def former_targets(self) -> dict[str, str]:
        """Today's name of each target -> its former one."""
        return {new: old for old, new in self.targets.items()}


@cache
def recorded() -> tuple[Layout, ...]:
    """Return every rearrangement so far, oldest first."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return tuple(
        Layout(**{**one, **{kind: tuple(Node(**node) for node in one[kind]) for kind in ("nodes", "places")}})
        for one in yaml.load(text, Loader=loader)
    )
