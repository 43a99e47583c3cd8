"""Read the bases and class attributes of a `_target_` from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from robustlab.config.static.sources import (
    Definition,
    NotThereError,
    UnreadableError,
    last_name,
    lookup,
    resolve,
    safe_locate,
)

_DEPTH = 12
_PLAIN_BASES = {"object", "ABC", "Protocol", "Generic"}


def own_attribute(target: str, name: str) -> Any:
    """Return the literal value of a class attribute, own or inherited; None if it is not a literal.

    Also None if an instance may override it: a property, or an assignment to `self.<name>`.
    """
    definition = safe_locate(target)
    for one in [] if definition is None else lineage(definition)[0]:
        assert isinstance(one.node, ast.ClassDef)
        if any(_sets_on_self(node, name) for node in ast.walk(one.node)):
            return None
        for statement in one.node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == name:
                return None
            value = _assigned(statement, name)
            if value is not None:
                return _literal(value, one)
    return None


def lineage(definition: Definition, depth: int = 0) -> tuple[list[Definition], bool]:
    """Return a class and all its bases, derived before base, and whether all of them could be read."""
    if not isinstance(definition.node, ast.ClassDef) or depth > _DEPTH:
        return [], False
    found, whole = [definition], True
    for base in definition.node.bases:
        if last_name(base) in _PLAIN_BASES:
            continue
        try:
            more, read = lineage(resolve(base, definition.module), depth + 1)
        except (UnreadableError, NotThereError):
            more, read = [], False
        found, whole = [*found, *more], whole and read
    return found, whole


def _sets_on_self(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(ast.unparse(target) == f"self.{name}" for target in _flat(targets))


def _flat(targets: Sequence[ast.expr]) -> Iterator[ast.expr]:
    for target in targets:
        yield from _flat(target.elts) if isinstance(target, ast.Tuple | ast.List) else (target,)


def _assigned(statement: ast.stmt, name: str) -> ast.expr | None:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
    return statement.value if named and isinstance(statement, ast.Assign | ast.AnnAssign) else None


def _literal(value: ast.expr, owner: Definition) -> Any:
    try:
        if isinstance(value, ast.Name):
            found = lookup(owner.module, value.id).node
            return ast.literal_eval(found) if isinstance(found, ast.expr) else None
        return ast.literal_eval(value)
    except (ValueError, UnreadableError, NotThereError):
        return None
