"""Find definitions in Python source without importing it: from `torch.optim.SGD` to its class statement.

Importing torch takes seconds; parsing the one file that defines the name takes milliseconds.
"""

from __future__ import annotations

import ast
import difflib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from robustlab.config.static.module_specs import find_spec


class UnreadableError(Exception):
    """The name may exist, but source alone cannot show it (an extension module, a name made at run time)."""


class NotThereError(Exception):
    """The name does not exist. `name`: the wrong part; `names`: the names that exist in its place."""

    def __init__(self, message: str, name: str = "", names: tuple[str, ...] = ()) -> None:
        """Store the message, the wrong part of the dotted name, and the names that exist in its place."""
        super().__init__(message)
        self.name, self.names = name, names


@dataclass(frozen=True)
class Module:
    """A parsed module. `bindings`: the last statement that binds each top-level name; `stars`: `from x import *`."""

    name: str
    is_package: bool
    bindings: dict[str, ast.stmt]
    stars: tuple[str, ...]
    dynamic: bool = field(default=False)

    def absolute(self, module: str | None, level: int) -> str:
        """Return the full name of what `from <dots><module> import` refers to in this module."""
        if level == 0:
            return module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - level + (1 if self.is_package else 0)]
        return ".".join((*parts, module) if module else parts)


@dataclass(frozen=True)
class Definition:
    """A class or function statement, or an assigned expression, and the module that contains it."""

    module: Module
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.expr


@cache
def read_module(name: str) -> Module:
    """Parse a module. Raises `NotThereError` if it does not exist, `UnreadableError` if it is not Python source."""
    spec = find_spec(name)
    if spec is None:
        parent, _, last = name.rpartition(".")
        raise NotThereError(f"there is no module '{name}'", last, tuple(submodules(parent)) if parent else ())
    if spec.origin is None or not spec.origin.endswith(".py"):
        if spec.submodule_search_locations is not None:
            return Module(name, True, {}, ())
        raise UnreadableError(name)
    try:
        text = Path(spec.origin).read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UnreadableError(f"{spec.origin}: {error}") from error
    bindings: dict[str, ast.stmt] = {}
    stars: list[str] = []
    module = Module(name, spec.submodule_search_locations is not None, bindings, (), "globals()" in text)
    for statement in _top_level(tree.body):
        for bound in _names_bound(statement):
            bindings[bound] = statement
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            stars.append(module.absolute(statement.module, statement.level))
    return Module(name, module.is_package, bindings, tuple(stars), module.dynamic or "__getattr__" in bindings)


def submodules(package: str) -> list[str]:
    """Return the names of a package's modules, without importing it."""
    spec = find_spec(package)
    locations = spec.submodule_search_locations if spec is not None else None
    return [module.name for module in pkgutil.iter_modules(list(locations))] if locations else []


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported; the first branch comes last, so that its names win."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.Try):
            for handler in statement.handlers:
                yield from _top_level(handler.body)
        if isinstance(statement, ast.If | ast.Try):
            yield from _top_level(statement.orelse)
        if isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _top_level(statement.body)


def _names_bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, ast.ImportFrom | ast.Import):
        for alias in statement.names:
            yield alias.asname or (alias.name if isinstance(statement, ast.ImportFrom) else alias.name.split(".")[0])
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def lookup(module: Module, name: str, depth: int = 0) -> Definition:
    """Return the definition of a module's top-level name, following imports. Raises the same as `locate`."""
    if depth > 20:
        raise UnreadableError(f"{module.name}.{name}")
    statement = module.bindings.get(name)
    if statement is None:
        return _lookup_elsewhere(module, name, depth)
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return Definition(module, statement)
    if isinstance(statement, ast.ImportFrom):
        origin = module.absolute(statement.module, statement.level)
        original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        return lookup(read_module(origin), original, depth + 1)
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        if isinstance(statement.value, ast.Name) and statement.value.id != name:
            return lookup(module, statement.value.id, depth + 1)
        return Definition(module, statement.value)
    raise UnreadableError(f"{module.name}.{name}")


def _lookup_elsewhere(module: Module, name: str, depth: int) -> Definition:
    unreadable = module.dynamic
    for star in module.stars:
        try:
            return lookup(read_module(star), name, depth + 1)
        except UnreadableError:
            unreadable = True
        except NotThereError:
            continue
    if unreadable:
        raise UnreadableError(f"{module.name}.{name}")
    public = tuple(bound for bound in module.bindings if not bound.startswith("_"))
    raise NotThereError(f"module '{module.name}' has no '{name}'", name, (*public, *submodules(module.name)))


def locate(target: str) -> Definition:
    """Return the definition that a dotted name refers to: `package.module.Class`, `...function`, `...Class.method`.

    Raises `NotThereError` if it does not exist, `UnreadableError` if only importing could tell.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise NotThereError(f"'{target}' is not a dotted name such as package.module.Class")
    end = len(parts) - 1
    while end > 1 and find_spec(".".join(parts[:end])) is None:
        end -= 1
    definition = _lookup_in(".".join(parts[:end]), parts[end], last=end == len(parts) - 1)
    for part in parts[end + 1 :]:
        if not isinstance(definition.node, ast.ClassDef):
            raise NotThereError(f"'{'.'.join(parts[: end + 1])}' has no '{part}'")
        definition = _member(definition, part)
    return definition


def safe_locate(target: str) -> Definition | None:
    """Return the same as `locate`, or None if it raises."""
    try:
        return locate(target)
    except (UnreadableError, NotThereError):
        return None


def _lookup_in(package: str, name: str, *, last: bool) -> Definition:
    try:
        return lookup(read_module(package), name)
    except UnreadableError:
        modules = tuple(submodules(package))
        if not last and difflib.get_close_matches(name, modules, n=1):
            raise NotThereError(f"there is no module '{package}.{name}'", name, modules) from None
        raise


def _member(owner: Definition, name: str) -> Definition:
    assert isinstance(owner.node, ast.ClassDef)
    for statement in owner.node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return Definition(owner.module, statement)
    if owner.node.bases:
        raise UnreadableError(f"{owner.node.name}.{name}")
    methods = tuple(item.name for item in owner.node.body if isinstance(item, ast.FunctionDef))
    raise NotThereError(f"class '{owner.node.name}' has no '{name}'", name, methods)


def resolve(node: ast.expr, module: Module) -> Definition:
    """Return the definition that an expression in a module's source refers to. Raises the same as `locate`."""
    if isinstance(node, ast.Subscript):
        return resolve(node.value, module)
    if isinstance(node, ast.Name):
        return lookup(module, node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        statement = module.bindings.get(node.value.id)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return locate(f"{_imported_as(statement, node.value.id, module)}.{node.attr}")
    raise UnreadableError(ast.unparse(node))


def _imported_as(statement: ast.Import | ast.ImportFrom, name: str, module: Module) -> str:
    if isinstance(statement, ast.ImportFrom):
        original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        return f"{module.absolute(statement.module, statement.level)}.{original}"
    return next((alias.name for alias in statement.names if alias.asname == name), name)


def last_name(node: ast.expr) -> str:
    """Return `c` for an expression `a.b.c` or `a.b.c[...]`; "" for anything else."""
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
