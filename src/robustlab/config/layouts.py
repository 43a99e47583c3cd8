"""Translate settings between the names they were first written with, which enter run names, and today's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from robustlab.config import renames
from robustlab.config.dotted import ABSENT, add, drop, flat, get, is_same, move, nested, put, take
from robustlab.config.renames import Layout, Node

TARGET = "_target_"


def in_todays_words(config: Mapping[str, Any], layouts: Sequence[Layout] | None = None) -> dict[str, Any]:
    """Return a stored configuration under today's names; a current one is returned unchanged.

    - config: nested and resolved, as in config.yaml. New keys are added with the value at which they have no effect. An
      empty one, which stands for a missing file, stays empty.
    """
    settings = copy.deepcopy(dict(config))
    for layout in _or_own(layouts) if settings else ():
        settings = _nodes(settings, lambda node, layout=layout: _renewed(node, layout))
        for place in layout.places:
            if _matches(settings, place.old) and _is_at(settings, place.keys, place.keys.values()):
                settings = _renew(settings, place)
        add(settings, layout.neutral)
    return settings


def node_in_todays_words(node: Mapping[str, Any], layouts: Sequence[Layout] | None = None) -> dict[str, Any]:
    """Do the same as `in_todays_words` for a single stored group, such as a model's."""
    settings = copy.deepcopy(dict(node))
    for layout in _or_own(layouts):
        settings = _nodes(settings, lambda node, layout=layout: _renewed(node, layout))
    return settings


def as_first_written(settings: Mapping[str, Any], layouts: Sequence[Layout] | None = None) -> dict[str, Any]:
    """Return settings under the names that a run of the same computation was first hashed with.

    The inverse of `in_todays_words`; settings added since then stay as they are.

    - settings: nested, resolved, plain.
    """
    first: dict[str, Any] = copy.deepcopy(dict(settings))
    for layout in reversed(_or_own(layouts)):
        drop(first, layout.neutral)
        for place in reversed(layout.places):
            if _matches(first, place.new) and _is_at(first, place.keys.values(), place.keys):
                _restore(first, place)
        first = _nodes(first, lambda node, layout=layout: _restored(node, layout))
    return first


def flat_in_todays_words(settings: Mapping[str, Any], layouts: Sequence[Layout] | None = None) -> dict[str, Any]:
    """Do the same as `in_todays_words` for settings with dotted keys, as stored in checkpoints."""
    return flat(in_todays_words(nested(settings), layouts))


def todays_target(target: str, layouts: Sequence[Layout] | None = None) -> str | None:
    """Return the current spelling of a class's former name, including its parts; None for any other name."""
    node = {TARGET: target}
    for layout in _or_own(layouts):
        rows = [row for row in layout.nodes if row.old.get(TARGET) == node[TARGET]]
        news = {str(row.new[TARGET]) for row in rows}
        if len(rows) == 1:
            node = {**node, **rows[0].new}
        elif len(news) == 1:
            node[TARGET] = news.pop()
        else:
            node[TARGET] = _todays_name(node[TARGET], layout)
    if node == {TARGET: target}:
        return None
    parts = [f"{key}={value}" for key, value in node.items() if key != TARGET]
    return " with ".join([str(node[TARGET]), *([", ".join(parts)] if parts else [])])


def todays_key(target: str, where: str, key: str, layouts: Sequence[Layout] | None = None) -> str | None:
    """Return today's dotted key, from the top, for a class's former key; None for any other key.

    - target: today's name of the class.
    - where: dotted key of the class's group, from the top.
    """
    found = f"{where}.{key}"
    for layout in _or_own(layouts):
        inside = [row.keys for row in layout.nodes if row.new.get(TARGET) == target]
        moved = [{f"{where}.{old}": f"{where}.{new}" for old, new in keys.items()} for keys in inside]
        found = next((keys[found] for keys in (*moved, *(row.keys for row in layout.places)) if found in keys), found)
    return found if found != f"{where}.{key}" else None


def _or_own(layouts: Sequence[Layout] | None) -> Sequence[Layout]:
    return renames.recorded() if layouts is None else layouts


def _nodes(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Apply `change` to every group with a `_target_`, outer ones first."""
    if isinstance(value, Mapping):
        node = dict(value)
        node = change(node) if isinstance(node.get(TARGET), str) else node
        return {key: _nodes(item, change) for key, item in node.items()}
    if isinstance(value, list):
        return [_nodes(item, change) for item in value]
    return value


def _renewed(node: dict[str, Any], layout: Layout) -> dict[str, Any]:
    row = _best(node, [(row.old, row) for row in layout.nodes])
    if row is None:
        return {**node, TARGET: _todays_name(node[TARGET], layout)}
    return _renew(node, row)


def _restored(node: dict[str, Any], layout: Layout) -> dict[str, Any]:
    row = _best(node, [(row.new, row) for row in layout.nodes])
    if row is None:
        return {**node, TARGET: _moved(node[TARGET], layout.former_targets, layout.former_modules)}
    _restore(node, row)
    return node


def _todays_name(target: str, layout: Layout) -> str:
    return _moved(target, layout.targets, layout.modules)


def _moved(target: str, targets: Mapping[str, str], modules: Mapping[str, str]) -> str:
    """Return the new name of a target from its own row, or else its module's; a class takes its methods along."""
    owner, _, name = target.rpartition(".")
    if target in targets:
        return targets[target]
    if owner in targets:
        return f"{targets[owner]}.{name}"
    if owner in modules:
        return f"{modules[owner]}.{name}"
    module, _, class_name = owner.rpartition(".")
    if class_name[:1].isupper() and module in modules:
        return f"{modules[module]}.{class_name}.{name}"
    return target


def _best(node: Mapping[str, Any], rows: Sequence[tuple[Mapping[str, Any], Node]]) -> Node | None:
    matching = [(len(values), row) for values, row in rows if _matches(node, values)]
    return max(matching, key=lambda pair: pair[0])[1] if matching else None


def _is_at(node: Mapping[str, Any], here: Iterable[str], there: Iterable[str]) -> bool:
    """Return whether settings exist here and none there, where a user's own class may have settings of that name."""
    return any(get(node, key) is not ABSENT for key in here) and all(get(node, key) is ABSENT for key in there)


def _matches(node: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return all(is_same(get(node, key), value) for key, value in values.items())


def _renew(node: dict[str, Any], row: Node) -> dict[str, Any]:
    """Return a group in a row's current form, or unchanged if that could not be undone, as for a null part."""
    new = copy.deepcopy(node)
    for key in row.old:
        take(new, key)
    move(new, row.keys)
    for key, value in row.new.items():
        put(new, key, value)
    add(new, row.neutral)
    back = copy.deepcopy(new)
    _restore(back, row)
    return new if back == node and _matches(new, row.new) else node


def _restore(node: dict[str, Any], row: Node) -> None:
    drop(node, row.neutral)
    for key in row.new:
        take(node, key)
    move(node, {new: old for old, new in row.keys.items()})
    for key, value in row.old.items():
        put(node, key, value)
