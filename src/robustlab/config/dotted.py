"""Access nested settings by dotted keys: flatten and unflatten, get, set and remove."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

ABSENT = object()
"""Returned by `get` and `take` for a missing key."""


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> leaf for nested groups; lists count as leaves."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts = [flat(part, f"{prefix}.{key}".lstrip(".")) for key, part in value.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested groups that `flat` flattened."""
    groups: dict[str, Any] = {}
    for key, value in settings.items():
        if not put(groups, key, value):
            groups[key] = value  # part of a key that itself contains dots
    return groups


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, distinguishing False from 0."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def move(node: dict[str, Any], keys: Mapping[str, str]) -> None:
    """Move values and groups from one dotted key to another, all at once, ignoring missing ones."""
    taken = {new: take(node, old) for old, new in keys.items()}
    for key, value in taken.items():
        if value is not ABSENT:
            put(node, key, value)


def add(node: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set missing dotted keys in existing groups."""
    for key, value in values.items():
        parent, name = _parent(node, key)
        if isinstance(parent, dict):
            parent.setdefault(name, copy.deepcopy(value))


def drop(node: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Delete the dotted keys that have these values."""
    for key, value in values.items():
        if is_same(get(node, key), value):
            parent, name = _parent(node, key)
            del parent[name]


def _parent(node: dict[str, Any], key: str) -> tuple[Any, str]:
    above, _, name = key.rpartition(".")
    return (get(node, above) if above else node), name


def get(node: Any, key: str) -> Any:
    """Return the value at a dotted key, or `ABSENT`."""
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return ABSENT
        node = node[name]
    return node


def put(node: dict[str, Any], key: str, value: Any) -> bool:
    """Set a dotted key, creating groups as needed; return False if a value is in the way."""
    first, _, rest = key.partition(".")
    if not rest:
        node[first] = copy.deepcopy(value)
        return True
    below = node.setdefault(first, {})
    return isinstance(below, dict) and put(below, rest, value)


def take(node: dict[str, Any], key: str) -> Any:
    """Remove a dotted key, and any groups that become empty; return its value."""
    first, _, rest = key.partition(".")
    if not rest:
        return node.pop(first, ABSENT)
    below = node.get(first)
    if not isinstance(below, dict):
        return ABSENT
    value = take(below, rest)
    if value is not ABSENT and not below:
        del node[first]
    return value
