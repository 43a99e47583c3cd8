"""Former names of classes and keys: one `Layout` for each time that the code was rearranged, oldest first.

Names of run folders are hashes of the settings as they were first written, so a class that moves or a key that gets
another place needs a row here, and nothing else:

- a module that moved with all that is in it: a row of `modules`;
- one class or function that moved or got another name: a row of `targets`;
- a key that moved inside a class, or a class that became another class with a part: a `Node` in `nodes`;
- a key that moved from one group to another: a `Node` in `places`, whose keys begin at the top of the configuration;
- a new key that says nothing at its default: a row of `neutral`, with that value.

`config.layouts` applies the tables. In each of them a former name is never used again for something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Node:
    """A group of settings that is written in another way since a rearrangement.

    - `old`, `new`: dotted key below the group -> value; all of them tell that the group is meant, and replace each
      other. Of several nodes that match, the one with most values is taken.
    - `keys`: former dotted key -> today's; values and whole groups go along.
    - `neutral`: today's dotted keys that had no counterpart -> the value at which they say nothing.
    """

    old: Mapping[str, Any]
    new: Mapping[str, Any]
    keys: Mapping[str, str] = field(default_factory=dict)
    neutral: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Former name -> the one that replaced it; see the module's docstring. Names of modules and classes are dotted."""

    modules: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    places: tuple[Node, ...] = ()
    neutral: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def former_modules(self) -> dict[str, str]:
        """`modules` from today's name to the former one."""
        return {new: old for old, new in self.modules.items()}

    @cached_property
    def former_targets(self) -> dict[str, str]:
        """`targets` from today's name to the former one."""
        return {new: old for old, new in self.targets.items()}


LAYOUTS: tuple[Layout, ...] = (
    Layout(  # packages by floor and room
        modules={},
        targets={},
        nodes=(),
        places=(),
        neutral={},
    ),
)
