"""Select the rows sent to W&B: local rows merged into one per step, each step once, even after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robustlab.tracking.jsonl import decode_row


class Tail:
    """Reads the rows that a growing file of JSON lines has gained."""

    def __init__(self, path: Path):
        self._path = path
        self._offset = 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the whole lines since the last call."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield decode_row(line)


class Merger:
    """Merges the rows of both files into one row per step, in order of steps, leaving out steps before `first`."""

    def __init__(self, folder: Path, *, first: int = 0):
        self._metrics = Tail(folder / "metrics.jsonl")
        self._timing = Tail(folder / "timing.jsonl")
        self._pending: dict[int, dict[str, Any]] = {}
        self._next = first

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add values to a step, or to the next one that is sent if that step has been sent."""
        self._pending.setdefault(max(step, self._next), {}).update(values)

    def ready(self, *, everything: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (step, row) for the steps that are complete; with `everything`, for all.

        A step is complete when `metrics.jsonl` has gone beyond it: timing rows are written before the metrics rows of
        the same step, so reading the metrics first sees all of them.
        """
        newest = -1
        for row in self._metrics.rows():
            newest = max(newest, row["step"])
            self._take(row)
        for row in self._timing.rows():
            self._take(row)
        for step in sorted(self._pending):
            if everything or step < newest:
                self._next = step + 1
                yield step, self._pending.pop(step)

    def _take(self, row: dict[str, Any]) -> None:
        if row["step"] >= self._next:
            self._pending.setdefault(row["step"], {}).update({k: v for k, v in row.items() if k != "split"})
