"""The floors: imports go down only, no circles, file names occur once, files and functions stay readable."""

import ast
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import robustlab
from tests.architecture.imports import Import, circles, imports, modules

PACKAGE = Path(robustlab.__file__).parent

FLOORS = (
    ("__main__",),
    ("commands", "train"),
    ("launch",),
    ("study",),
    ("sweeps",),
    ("report", "export"),
    ("methods",),
    ("diagnostics",),
    ("engine",),
    ("pruning",),
    ("tracking",),
    ("data",),
    ("models",),
    ("config",),
    ("metrics",),
    ("core",),
    ("",),
)
"""From the top down; what stands on one floor does not import its neighbours. "" is the package's `__init__`."""

LEVEL = {room: len(FLOORS) - at for at, floor in enumerate(FLOORS) for room in floor}

PROCESSES = frozenset({"train", "__main__", "tracking.wandb_feed"})
"""Modules that others start as processes, `python -m robustlab.train`; to name one is not to import it."""


def room(module: str) -> str:
    return module.partition(".")[0]


def is_upward(one: Import) -> bool:
    above, below = LEVEL[room(one.imported)], LEVEL[room(one.module)]
    return room(one.imported) != room(one.module) and above >= below


def test_imports_go_down_only():
    found = [
        f"{one.module}:{one.line} imports {one.imported}"
        for one in imports(PACKAGE)
        if is_upward(one) and one.imported not in PROCESSES
    ]
    assert not found, "\n".join(found)


def test_every_room_stands_on_a_floor():
    assert {room(module) for module in modules(PACKAGE)} == set(LEVEL)


def test_there_is_no_circle_of_files():
    arrows = defaultdict(set)
    for one in imports(PACKAGE):
        if one.imported not in PROCESSES:
            arrows[one.module].add(one.imported)
    assert circles(arrows) == []


def test_there_is_no_circle_of_rooms_within_a_floor():
    """data/sources, data/noise, ...: what a room holds does not lean on a room that leans on it."""
    arrows = defaultdict(set)
    for one in imports(PACKAGE):
        here, there = one.module.split(".")[:-1], one.imported.split(".")[:-1]
        if here[:1] == there[:1] and here != there and len(here) == len(there) == 2:
            arrows[".".join(here)].add(".".join(there))
    assert circles(arrows) == []


def test_a_file_name_occurs_once():
    names = Counter(path.name for path in modules(PACKAGE).values() if path.name != "__init__.py")
    assert {name: count for name, count in names.items() if count > 1} == {}


@pytest.mark.parametrize("folder", ["src", "scripts"])
def test_files_and_functions_stay_readable(folder):
    """No file over 250 lines, no function over 50."""
    found = []
    for path in sorted((PACKAGE.parents[1] / folder).rglob("*.py")):
        text = path.read_text()
        if text.count("\n") > 250:
            found.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (length := node.end_lineno - node.lineno + 1) > 50:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    assert not found, "\n".join(found)


def test_an_upward_import_is_found(tmp_path):
    """Also a local one, one under TYPE_CHECKING, and a `_target_` in text."""
    package = tmp_path / "robustlab"
    for name, text in {
        "__init__.py": "",
        "core/__init__.py": "",
        "core/a.py": "def f():\n    from robustlab.engine import loop\n",
        "core/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from robustlab.engine.loop import fit\n",
        "core/c.py": "BASE = 'robustlab.engine.loop.Base'\n",
        "engine/__init__.py": "",
        "engine/loop.py": "from robustlab.core.a import f\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = {one.module: one for one in imports(package) if is_upward(one)}
    assert set(found) == {"core.a", "core.b", "core.c"}
    assert {one.imported for one in found.values()} == {"engine.loop"}
    arrows = {one.module: {one.imported} for one in imports(package) if one.module != "core.b"}
    assert circles(arrows) == [["core.a", "engine.loop"]]
