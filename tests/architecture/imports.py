"""Reads the imports of a package from its source: also local ones, those for types alone, modules named in text."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """`module` names `imported`, both dotted and without the name of the package itself; "" is its `__init__`."""

    module: str
    imported: str
    line: int


def modules(package: Path) -> dict[str, Path]:
    """Return the file of every module below a package by dotted name, e.g. "engine.loop"; "engine" is its __init__."""
    return {_dotted(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(package: Path) -> Iterator[Import]:
    """Yield every import of one module of a package by another, and every text that is the dotted path of one."""
    known = modules(package)
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _named(node, package.name):
                imported = _nearest(name.removeprefix(package.name).removeprefix("."), known)
                if imported != module:
                    yield Import(module, imported, node.lineno)  # type: ignore[attr-defined]


def _named(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        return [f"{node.module}.{one.name}" for one in node.names] if _within(str(node.module), package) else []
    if isinstance(node, ast.Import):
        return [one.name for one in node.names if _within(one.name, package)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        dotted = all(part.isidentifier() for part in node.value.split("."))
        return [node.value] if dotted and node.value.startswith(f"{package}.") else []
    return []


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _nearest(name: str, known: dict[str, Path]) -> str:
    """Return the module that holds `name`: itself, or the nearest one above."""
    while name not in known:
        name = name.rpartition(".")[0]
    return name


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach one another (Tarjan's strongly connected components of two or more)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(arrows):
        if node not in order:
            visit(node)
    return found
