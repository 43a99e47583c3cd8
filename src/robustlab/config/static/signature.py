"""Find the arguments of a `_target_` from its source, importing it only if the source is not enough."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from robustlab.config.kinds import ANYTHING
from robustlab.config.records import Field, Record
from robustlab.config.static.annotations import EMPTY_BASES, is_dataclass, kind_later, of_dataclass
from robustlab.config.static.bounds import bounded
from robustlab.config.static.sources import (
    Definition,
    Module,
    NotThereError,
    UnreadableError,
    last_name,
    locate,
    resolve,
)
from robustlab.config.static.typehints import from_type


@cache
def signature(target: str) -> Record:
    """Return the arguments of a `_target_` as a `Record`, `open` if it also accepts any other name.

    Raises `sources.NotThereError` if the target does not exist.
    """
    try:
        return _of_definition(locate(target))
    except UnreadableError:
        return _by_import(target)


def _of_definition(definition: Definition) -> Record:
    node = definition.node
    if isinstance(node, ast.ClassDef):
        return _of_class(definition)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        bound = bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
        return _of_function(node, definition.module, node.name, skip=1 if bound else 0)
    raise UnreadableError(ast.unparse(node))


def _of_class(definition: Definition, depth: int = 0) -> Record:
    node, module = definition.node, definition.module
    assert isinstance(node, ast.ClassDef)
    if depth > 8 or (node.keywords and any(keyword.arg == "metaclass" for keyword in node.keywords) and depth == 0):
        raise UnreadableError(node.name)
    if is_dataclass(node):
        return of_dataclass(definition)
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    if "__init__" in methods:
        own = _of_function(methods["__init__"], module, node.name, skip=1)
        checked = _checked_by_base(methods["__init__"], own, definition, depth)
        own = replace(own, fields=bounded(node, {**own.fields, **checked}))
        passed = _passed_to_base(methods["__init__"]) if own.open else None
        if passed is None:
            return own
        base = _of_bases(node, module, depth)
        inherited = {name: field for name, field in base.fields.items() if name not in passed}
        return Record(node.name, {**inherited, **own.fields}, open=base.open, noun="argument")
    if "__new__" in methods:
        raise UnreadableError(node.name)
    base = _of_bases(node, module, depth)
    return Record(node.name, base.fields, open=base.open, noun="argument")


def _of_bases(node: ast.ClassDef, module: Module, depth: int) -> Record:
    for base in node.bases:
        if last_name(base) in EMPTY_BASES:
            continue
        definition = resolve(base, module)
        if not isinstance(definition.node, ast.ClassDef):
            raise UnreadableError(ast.unparse(base))
        return _of_class(definition, depth + 1)
    return Record(node.name, {}, noun="argument")


def _checked_by_base(init: ast.FunctionDef, own: Record, definition: Definition, depth: int) -> dict[str, Field]:
    """Return the arguments that `__init__` passes to its base under the same name, with the base's bounds."""
    handed = {
        item.value.id
        for call in _base_calls(init)
        for item in call.keywords
        if isinstance(item.value, ast.Name) and item.value.id == item.arg and item.arg in own.fields
    }
    node = definition.node
    if not handed or not isinstance(node, ast.ClassDef):
        return {}
    try:
        base = _of_bases(node, definition.module, depth)
    except (UnreadableError, NotThereError):
        return {}
    return {name: replace(base.fields[name], required=own.fields[name].required) for name in handed & set(base.fields)}


def _base_calls(init: ast.FunctionDef) -> Iterator[ast.Call]:
    """Yield the calls of `super().__init__`."""
    for call in ast.walk(init):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__":
            yield call


def _of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, module: Module, name: str, *, skip: int) -> Record:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = list(zip(positional, defaults, strict=True))[skip:]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    fields = {
        argument.arg: Field(kind_later(argument.annotation, default, module), default is None)
        for argument, default in pairs
    }
    return Record(name, fields, open=arguments.kwarg is not None, noun="argument")


def _passed_to_base(init: ast.FunctionDef) -> set[str] | None:
    """Return the arguments that `__init__` passes to `super().__init__(..., **kwargs)`; None without such a call."""
    keywords = init.args.kwarg.arg if init.args.kwarg else None
    for call in _base_calls(init):
        if not call.args and any(item.arg is None and last_name(item.value) == keywords for item in call.keywords):
            return {item.arg for item in call.keywords if item.arg is not None}
    return None


def _by_import(target: str) -> Record:
    try:
        made = import_target(target)
    except Exception as error:
        # Any exception during import means that the target cannot be used.
        raise NotThereError(f"'{target}' cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(made):
        raise NotThereError(f"'{target}' is a {type(made).__name__}, which cannot be called")
    name = target.rpartition(".")[2]
    try:
        parameters = inspect.signature(made).parameters.values()
    except (ValueError, TypeError):
        return Record(name, {}, open=True, noun="argument")
    fields = {
        item.name: Field(
            lambda hint=item.annotation: ANYTHING if hint is inspect.Parameter.empty else from_type(hint),
            item.default is item.empty,
        )
        for item in parameters
        if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    }
    return Record(name, fields, open=any(item.kind is item.VAR_KEYWORD for item in parameters), noun="argument")


def import_target(target: str) -> Any:
    """Return the object that a dotted name refers to; raises whatever its modules raise on import."""
    parts = target.split(".")
    made = importlib.import_module(parts[0])
    for end in range(1, len(parts)):
        if not hasattr(made, parts[end]):
            importlib.import_module(".".join(parts[: end + 1]))
        made = getattr(made, parts[end])
    return made
