"""Read the bounds of arguments from a constructor's source: `at_least("epochs", epochs, 1)`, `within(...)`.

A bound is thus written once, in the constructor, and still known before anything is imported. Calls that depend on a
condition other than `... is not None`, or on values that only exist at run time, are left to the constructor.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping

from robustlab.config.kinds import Either, Kind, Range, Scalar
from robustlab.config.records import Field
from robustlab.config.static.sources import last_name

_CONSTRUCTORS = ("__init__", "__post_init__")


def bounded(node: ast.ClassDef, fields: Mapping[str, Field]) -> dict[str, Field]:
    """Return the fields of a class, restricted by the bounds that its constructor checks."""
    limits: dict[str, list[Range]] = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name in _CONSTRUCTORS:
            for name, limit in _stated(item.body, {}):
                limits.setdefault(name, []).append(limit)
    return {name: _with_limits(field, tuple(limits.get(name, ()))) for name, field in fields.items()}


def _stated(body: list[ast.stmt], names: Mapping[str, list[str]]) -> Iterator[tuple[str, Range]]:
    """Yield (argument, bound) for each checking call; `names` maps a loop variable to the arguments it takes on."""
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            yield from _of_call(statement.value, names)
        elif isinstance(statement, ast.If) and ast.unparse(statement.test).endswith(" is not None"):
            yield from _stated(statement.body, names)
        elif isinstance(statement, ast.For) and isinstance(statement.target, ast.Name):
            words = statement.iter.elts if isinstance(statement.iter, ast.Tuple) else []
            values = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            yield from _stated(statement.body, {**names, statement.target.id: values})


def _of_call(call: ast.Call, names: Mapping[str, list[str]]) -> Iterator[tuple[str, Range]]:
    function = last_name(call.func)
    if function not in ("at_least", "within") or len(call.args) < 3:
        return
    try:
        numbers = [ast.literal_eval(argument) for argument in call.args[2:]]
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError:  # a bound that is computed
        return
    if function == "within":
        low, high = "above" if options.get("above") else "low", "below" if options.get("below") else "high"
        limit = Range(**{low: numbers[0], high: numbers[1]})
    else:
        limit = Range(**{"above" if options.get("above") else "low": numbers[0]})
    for name in _arguments(call.args[1], names):
        yield name, limit


def _arguments(value: ast.expr, names: Mapping[str, list[str]]) -> list[str]:
    """Return the arguments that an expression refers to: `epochs`, `self.epochs` or `getattr(self, name)`."""
    if isinstance(value, ast.Attribute) and ast.unparse(value.value) == "self":
        return [value.attr]
    if isinstance(value, ast.Call) and last_name(value.func) == "getattr" and isinstance(value.args[1], ast.Name):
        return names.get(value.args[1].id, [])
    return [value.id] if isinstance(value, ast.Name) and value.id not in names else []


def _with_limits(field: Field, limits: tuple[Range, ...]) -> Field:
    return dataclasses.replace(field, kind=lambda: limited(field.kind(), limits)) if limits else field


def limited(kind: Kind, limits: tuple[Range, ...]) -> Kind:
    """Return a kind with additional bounds on its numbers."""
    if isinstance(kind, Either):
        return Either(tuple(limited(one, limits) for one in kind.kinds))
    if isinstance(kind, Scalar) and kind.type in (int, float):
        return dataclasses.replace(kind, limits=(*kind.limits, *limits))
    return kind
