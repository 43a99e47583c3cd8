"""Bases and class attributes of a `_target_`, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from robustlab.config.sources import Definition, NotThereError, UnreadableError, lookup, resolve, safe_locate

_DEPTH = 12


def own_attribute(target: str, name: str) -> Any:
    """Return the literal that a class or the nearest of its bases gives an attribute; None where it is not a literal.

    None, too, where an instance may have another one: a property, or an assignment to `self.<name>`.
    """
    definition = safe_locate(target)
    for one in () if definition is None else bases(definition):
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


def bases(definition: Definition, depth: int = 0) -> Iterator[Definition]:
    """Yield a class and the bases that can be read, each before its own bases; nothing for what is not a class."""
    if not isinstance(definition.node, ast.ClassDef) or depth > _DEPTH:
        return
    yield definition
    for base in definition.node.bases:
        try:
            found = resolve(base, definition.module)
        except (UnreadableError, NotThereError):
            continue
        yield from bases(found, depth + 1)


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
