"""Which rows W&B gets: local rows merged into one per step, each step once, also after a kill."""

from __future__ import annotations

import json
import os
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


class Sent:
    """Remembers in a file, for one server, the last step of the run that was handed to W&B."""

    def __init__(self, folder: Path, *, url: str):
        self._path = folder / "sent.json"
        self._url = url

    def next_step(self) -> int:
        """Return the first step that was not handed over; 0 if nothing was, or to another server."""
        return int(self._read().get("step", -1)) + 1

    def is_complete(self) -> bool:
        """Whether this server has taken the whole of a finished run."""
        return bool(self._read().get("complete", False))

    def remember(self, step: int) -> None:
        """Write the step down."""
        self._write({"step": step})

    def remember_complete(self) -> None:
        """Write down that there is nothing left to send."""
        self._write({"step": self.next_step() - 1, "complete": True})

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if content.get("url") == self._url else {}

    def _write(self, content: Mapping[str, Any]) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"url": self._url, **content}), encoding="utf-8")
        os.replace(temporary, self._path)
