"""Find out how much of a run a server has, for servers that do not report it on resume.

`wandb/sent.json` names the server, the last step that it has for certain, and, until a segment (one start of the run
at W&B) has ended well, that segment. `wandb/handed_over.txt` has the steps handed over in it, one a line. How many of
them were taken is in the log that W&B's own process writes; the others died with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustlab.core.files import write_json

UPLOAD_LOG = Path("logs") / "debug-internal.log"


class Sent:
    """Remembers in files, for one server, which steps of the run it has."""

    def __init__(self, folder: Path, *, url: str):
        self._path = folder / "sent.json"
        self._steps = folder / "handed_over.txt"
        self._url = url

    def next_step(self) -> int:
        """Return the first step that the server does not have; 0 if it has none."""
        content = self._read()
        before = int(content.get("step", -1))
        if "segment" not in content:
            return before + 1
        handed_over = self._handed_over()
        taken = rows_taken(Path(content["segment"]) / UPLOAD_LOG)
        known = handed_over if taken is None else handed_over[:taken]
        return (known[-1] if known else before) + 1

    def is_complete(self) -> bool:
        """Whether this server has taken the whole of a finished run."""
        return bool(self._read().get("complete", False))

    def begin(self, segment: Path, *, first: int) -> None:
        """Note that steps from `first` on go to the server in a segment."""
        self._write({"step": first - 1, "segment": str(segment)})  # before its steps: a kill in between forgets nothing
        self._steps.write_bytes(b"")

    def remember(self, steps: Sequence[int]) -> None:
        """Note the steps that are being handed over, which need not arrive."""
        with open(self._steps, "a", encoding="ascii") as file:
            file.write("".join(f"{step}\n" for step in steps))

    def end(self, *, complete: bool) -> None:
        """Note that all that was handed over has arrived, and whether that was the whole of a finished run."""
        known = self._handed_over()
        step = known[-1] if known else int(self._read().get("step", -1))
        self._write({"step": step, **({"complete": True} if complete else {})})
        self._steps.unlink(missing_ok=True)

    def _handed_over(self) -> list[int]:
        try:
            lines = self._steps.read_bytes().splitlines(keepends=True)
        except OSError:
            return []
        return [int(line) for line in lines if line.endswith(b"\n")]

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if content.get("url") == self._url else {}

    def _write(self, content: Mapping[str, Any]) -> None:
        write_json(self._path, {"url": self._url, **content})


def rows_taken(log: Path) -> int | None:
    """Return how many history rows of a segment the server has confirmed; None if the log does not tell."""
    taken, asked = None, None
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        message = entry.get("msg", "")
        if message == "stream: starting":
            taken = 0
        elif message == "filestream: sending request":
            asked = entry.get("history_offset", 0) + entry["history_lines"] if "history_lines" in entry else None
        elif message == "filestream: request sent" and asked is not None and str(entry.get("status")).startswith("200"):
            taken, asked = asked, None
    return taken
