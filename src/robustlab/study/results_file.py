"""The file of a study's results: one JSON line per finished point, appended and never rewritten."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.study.study_plan import Point, key_of

LEFT_OUT = ("extrema/", "pruning/live/")
"""Metrics of each class or layer, which stay in the run folder: a line is to be read."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results; empty if there is none. Raises ConfigError for a damaged line."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not {"study", "command", "exit_code"} <= row.keys():
            raise ConfigError(f"{path}, line {number}, is damaged; remove it to rerun its point")
        rows.append(row)
    return rows


def row_key(row: Mapping[str, Any]) -> str:
    """Return what tells points apart, as `Point.key`."""
    return "\n".join([row["command"], *(f"{name}: {row['needs'][name]}" for name in sorted(row.get("needs", {})))])


@contextlib.contextmanager
def appending(path: Path) -> Iterator[None]:
    """Hold the file of results for one process. Raises RunFolderError where another one runs the same study."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}; choose another file with --results") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(
                f"{path} is in use: another process runs this study; wait for it or stop it"
            ) from error
        yield


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append one line and put it on the disk, so that a machine that goes away takes no finished point with it."""
    text = json.dumps(row, ensure_ascii=False) + "\n"
    with path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def row_of(study: str, point: Point, **facts: Any) -> dict[str, Any]:
    """Return the line of a point. facts: commit, dirty, exit_code, seconds, machine and what else is known."""
    needs = {name: Point(overrides).command for name, overrides in point.needs.items()}
    settings = {key_of(text): text.partition("=")[2] for text in point.own}
    return {
        "study": study,
        "command": point.command,
        **({"needs": needs} if needs else {}),
        "settings": {key: value for key, value in settings.items() if key != "seed"},
        "seed": point.seed,
        **facts,
    }


def metrics_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of each selection rule and those at the end of a run, from its `results.json`."""
    return {
        "metrics": {rule: _readable(row) for rule, row in results["selection"].items()},
        "final": _readable(results["final"]),
    }


def _readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what belongs to single classes and layers, and digits beyond the sixth."""
    kept = {name: value for name, value in row.items() if not name.startswith(LEFT_OUT)}
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in kept.items()}
