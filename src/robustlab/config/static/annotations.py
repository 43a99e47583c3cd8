"""Read the kind of a value from its type annotation in source, without importing the names it uses."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache

from robustlab.config.kinds import ANYTHING, Choice, Either, Items, Kind, Range, Scalar, Table, Thing, tuple_kind
from robustlab.config.records import Field, Record
from robustlab.config.static.bounds import bounded, limited
from robustlab.config.static.sources import Definition, Module, NotThereError, UnreadableError, last_name, resolve

_SCALARS = {"int": int, "float": float, "bool": bool, "str": str, "Path": str, "PathLike": str, "Number": float}
_LISTS = {"list", "List", "Sequence", "Iterable", "Collection", "set", "Set", "frozenset", "MutableSequence"}
_TABLES = {"dict", "Dict", "Mapping", "MutableMapping"}
_THINGS = {"Tensor", "Module", "Callable", "Generator", "Parameter", "Optimizer", "LRScheduler"}
"""Classes that no plain value can stand for; listed so that torch's large source files need not be parsed."""

EMPTY_BASES = {"object", "ABC", "Protocol", "Generic", "Module"}
"""Bases whose constructor takes no arguments."""


def kind_later(annotation: ast.expr | None, default: ast.expr | None, module: Module) -> Callable[[], Kind]:
    """Return a function that reads an annotation when first called, because a record may contain itself."""

    @cache
    def kind() -> Kind:
        if annotation is None:
            return _from_default(default)
        found = _kind(annotation, module, 0)
        none_is_default = isinstance(default, ast.Constant) and default.value is None
        return Either((found, Scalar(None))) if none_is_default and not found.fits(None) else found

    return kind


def _from_default(default: ast.expr | None) -> Kind:
    """Guess a permissive kind from a default without annotation: `lr=1` also accepts 0.5, and null always passes."""
    value = default.value if isinstance(default, ast.Constant) else None
    if isinstance(value, bool | int | float | str):
        kind = type(value) if isinstance(value, bool | str) else float
        return Either((Scalar(kind), Scalar(None)))
    return ANYTHING


def _kind(node: ast.expr, module: Module, depth: int) -> Kind:
    if depth > 12:
        return ANYTHING
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _kind(ast.parse(node.value, mode="eval").body, module, depth + 1)
        return Scalar(None) if node.value is None else ANYTHING
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _either([_kind(side, module, depth + 1) for side in (node.left, node.right)])
    if isinstance(node, ast.Subscript):
        return _kind_of_generic(node, module, depth)
    name = last_name(node)
    if name in ("Any", "object"):
        return ANYTHING
    if name in _SCALARS:
        return Scalar(_SCALARS[name])
    if name in _LISTS or name == "tuple" or name == "Tuple":
        return Items((ANYTHING,))
    if name in _TABLES:
        return Table(ANYTHING)
    if name in _THINGS:
        return Thing(name)
    return _kind_of_name(node, module, depth) if name else ANYTHING


def _kind_of_generic(node: ast.Subscript, module: Module, depth: int) -> Kind:
    name = last_name(node.value)
    items = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        return Choice(tuple(ast.literal_eval(item) for item in items))
    if name == "Callable":
        return Thing("Callable")
    if name == "Annotated":
        limits = [_range(item) for item in items[1:] if isinstance(item, ast.Call) and last_name(item.func) == "Range"]
        return limited(_kind(items[0], module, depth + 1), tuple(limits))
    if name in ("Final", "Required", "type", "Type"):
        return _kind(items[0], module, depth + 1) if name[0] not in "tT" else ANYTHING
    dots = [item for item in items if isinstance(item, ast.Constant) and item.value is Ellipsis]
    kinds = [_kind(item, module, depth + 1) for item in items if item not in dots]
    if name == "Optional":
        return _either([*kinds, Scalar(None)])
    if name == "Union":
        return _either(kinds)
    if name in ("tuple", "Tuple"):
        return tuple_kind(kinds, bool(dots))
    if name in _LISTS:
        return Items((kinds[0],))
    return Table(kinds[-1]) if name in _TABLES else ANYTHING


def _range(call: ast.Call) -> Range:
    return Range(**{str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords})


def _either(kinds: list[Kind]) -> Kind:
    flat = list(_flatten(kinds))
    return (
        ANYTHING
        if any(type(kind) is Kind for kind in flat)
        else Either(tuple({str(kind): kind for kind in flat}.values()))
    )


def _flatten(kinds: list[Kind]) -> Iterator[Kind]:
    for kind in kinds:
        yield from kind.kinds if isinstance(kind, Either) else (kind,)


def _kind_of_name(node: ast.expr, module: Module, depth: int) -> Kind:
    """Return the kind of a class or alias that a module defines or imports, or `ANYTHING` if it cannot be read."""
    try:
        definition = resolve(node, module)
    except (UnreadableError, NotThereError):
        return ANYTHING
    if isinstance(definition.node, ast.ClassDef):
        if is_dataclass(definition.node):
            return of_dataclass(definition)
        is_enum = any("Enum" in last_name(base) for base in definition.node.bases)
        return ANYTHING if is_enum else Thing(definition.node.name)
    return _kind(definition.node, definition.module, depth + 1) if isinstance(definition.node, ast.expr) else ANYTHING


def of_dataclass(definition: Definition) -> Record:
    """Return the fields of a dataclass, including inherited ones."""
    node, module = definition.node, definition.module
    assert isinstance(node, ast.ClassDef)
    fields: dict[str, Field] = {}
    for base in reversed(node.bases):
        if last_name(base) not in EMPTY_BASES:
            parent = resolve(base, module)
            if isinstance(parent.node, ast.ClassDef) and is_dataclass(parent.node):
                fields |= of_dataclass(parent).fields
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            if last_name(item.annotation) == "ClassVar" or _is_derived(item.value):
                continue
            required = item.value is None or (_is_field_call(item.value) and not _has_default(item.value))
            fields[item.target.id] = Field(kind_later(item.annotation, item.value, module), required)
    return Record(node.name, bounded(node, fields), noun="argument")


def is_dataclass(node: ast.ClassDef) -> bool:
    """Return whether a class statement is decorated with `dataclass`."""
    return any(
        last_name(decorator.func if isinstance(decorator, ast.Call) else decorator) == "dataclass"
        for decorator in node.decorator_list
    )


def _is_field_call(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and last_name(value.func) == "field"


def _has_default(value: ast.expr | None) -> bool:
    assert isinstance(value, ast.Call)
    return any(keyword.arg in ("default", "default_factory") for keyword in value.keywords)


def _is_derived(value: ast.expr | None) -> bool:
    return (
        isinstance(value, ast.Call)
        and _is_field_call(value)
        and any(
            keyword.arg == "init" and isinstance(keyword.value, ast.Constant) and not keyword.value.value
            for keyword in value.keywords
        )
    )
