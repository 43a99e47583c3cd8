"""Check from source that a `_target_` has the base class that its key requires."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from robustlab.config.kinds import is_node
from robustlab.config.static.classes import lineage
from robustlab.config.static.signature import import_target
from robustlab.config.static.sources import last_name, safe_locate


@cache
def contracts() -> dict[str, str]:
    """Return dotted key (a regular expression) -> dotted name of the base class of what is made there."""
    return yaml.safe_load((Path(__file__).parents[1] / "contracts.yaml").read_text(encoding="utf-8"))


_ALSO = {
    "Optimizer": {"Optimizer"},
    "LRScheduler": {"LRScheduler", "_LRScheduler", "Scheduler"},  # the last of timm
    "Module": {"Module", "Sequential"},
}
"""Classes accepted by name alone, because the files in between are too large to parse."""

_FUNCTIONS = frozenset({"Optimizer", "LRScheduler", "Module"})
"""Keys where a function is accepted too, although its source does not show what it returns."""


def contract_problem(target: str, where: str) -> str | None:
    """Return a message if a `_target_` makes something other than its key needs, else None.

    The target is known to exist: `signature` has read or imported it.
    """
    contract = next((base for key, base in contracts().items() if re.fullmatch(key, where)), None)
    if contract is None:
        return None
    name = contract.rpartition(".")[2]
    names = _bases(target)
    if names is None:
        known = name in _FUNCTIONS
        return None if known else f"{target} is a function; a class with the base {contract} is needed here"
    if "?" in names or names & _ALSO.get(name, {name}):
        return None
    return f"{target} does not have the base {contract}, which is needed here"


def _bases(target: str) -> set[str] | None:
    """Return the names of a class and its bases, with "?" for unreadable ones; None for a function."""
    definition = safe_locate(target)
    if definition is None:
        made = import_target(target)
        return {base.__name__ for base in made.__mro__} if isinstance(made, type) else None
    if isinstance(definition.node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    found, whole = lineage(definition)
    names = {"?"} if not whole else set()
    for one in found:
        assert isinstance(one.node, ast.ClassDef)
        names |= {one.node.name, *(last_name(base) for base in one.node.bases)}
    return names


_PLACES = {"scheduler": "schedule", "dataset": "source", "noise": "model"}


def misplaced(plain: Any) -> Iterator[str]:
    """Yield a message for each group whose `_target_` belongs one level below, and for misplaced experiment files."""
    if not isinstance(plain, Mapping):
        return
    for group, key in _PLACES.items():
        if is_node(plain.get(group)):
            yield f"{group}: its file has a _target_ at the top level; put it and its arguments below `{key}:`"
    setting = plain.get("setting")
    nested = {"setting"} if isinstance(setting, Mapping) and "setting" in setting else set()
    for group in ("experiment", "overlay", "setting"):
        if group in (nested if group == "setting" else plain):
            yield (
                f"{group}: the file of {group}=... lacks `# @package _global_` as its first line, so its keys land "
                f"below '{group}'; add that line"
            )
