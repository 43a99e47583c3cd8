"""List the tests and negative controls that cover each fault, from the markers in the tests, without importing them.

A test says `@pytest.mark.fault("F2")`; a negative control, which shows that the injector finds a bad implementation,
`@pytest.mark.fault("F2", control=True)`. One function may carry several.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
FAULTS = {
    "F1": "kill -9 at any time",
    "F2": "death at each write, fsync and rename of a save",
    "F3": "kill -9 at named points: data, before a checkpoint, evaluation, removal, after the last step",
    "F4": "a signal to the process or its group",
    "F5": "a second signal, fifty signals, a signal before training",
    "F6": "SLURM requeues",
    "F7": "disk or quota full",
    "F8": "newest checkpoint damaged",
    "F9": "checkpoint of other settings, widths or version",
    "F10": "malicious pickle",
    "F11": "NaN or infinity in a loss, gradient or metric",
    "F12": "corrupt image",
    "F13": "files or labels missing, added or changed",
    "F14": "interrupted or simultaneous preparation of data",
    "F15": "wrong key, type or value",
    "F16": "output folder that cannot be written",
    "F17": "path tricks in names and overrides",
    "F18": "W&B unreachable, refusing, slow or killed",
    "F19": "two processes on one run folder, stale locks",
    "F20": "DataLoader worker killed, raising or hanging",
    "F21": "out of memory",
    "F22": "clock, locale, umask, HOME, hash seed, working folder",
    "F23": "code or settings edited between submission and start",
    "F24": "network file system: errors that pass, no flock",
    "F25": "resumed with other workers, threads, device, precision or ranks",
    "F26": "killed between the pruning of model and optimizer; a layer dead",
    "F27": "killed between CrossSplit's halves; noisy labels altered",
}


@dataclass
class Cover:
    """Tests of one fault, each as "path::name"."""

    tests: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)


def covers(root: Path = TESTS) -> dict[str, Cover]:
    """Return what covers each fault among the test modules below `root`."""
    found = {fault: Cover() for fault in FAULTS}
    for path in sorted(root.rglob("test_*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                for fault, is_control in _marks(function):
                    cover = found[fault]
                    place = f"{path.relative_to(root.parent)}::{function.name}"
                    (cover.controls if is_control else cover.tests).append(place)
    return found


def _marks(function: ast.FunctionDef) -> Iterator[tuple[str, bool]]:
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
            options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in mark.keywords}
            for argument in mark.args:
                yield ast.literal_eval(argument), options.get("control", False)


def render(found: dict[str, Cover]) -> str:
    """Return the table as text: tests are marked +, negative controls -."""
    lines = []
    for fault, cover in found.items():
        lines.append(f"{fault:<4} {FAULTS[fault]} ({len(cover.tests)} tests, {len(cover.controls)} negative controls)")
        lines += [f"     + {place}" for place in cover.tests]
        lines += [f"     - {place}" for place in cover.controls]
    return "\n".join(lines)
