"""Append-only JSON lines: the source of truth for a run's metrics, from which every other tracker can be refilled.

Rows are standard JSON. Numbers that JSON lacks are written as the strings "NaN", "Infinity" and "-Infinity"
(`float()` of Python and `Number()` of JavaScript read them back); `read_rows` does so.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from robustlab.core.errors import RunFolderError

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_number(value: float) -> float | int | str:
    """Return a finite number as it is and others as "NaN", "Infinity" or "-Infinity"; 0-d tensors become floats."""
    if isinstance(value, int):
        return int(value)
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def decode_number(value: Any) -> Any:
    """Return the float that one of the three strings stands for, anything else as it is."""
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def read_rows(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file in order; a last line that is not whole (the writer was killed) is left out."""
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield decode_row(line)


def decode_row(line: bytes | str) -> dict[str, Any]:
    """Return the row of one line, with its non-finite numbers as floats."""
    return {name: decode_number(value) for name, value in json.loads(line).items()}


class JsonlWriter:
    """Writes rows to one file, one `write` per row, so that a kill leaves at most the last line torn.

    The file is opened by the first write (or `open`) and then cut back to `offset`: 0 for a fresh run, what
    `offset` was at the checkpoint for a resumed one. No row is doubled or missing after a resume.

    Raises:
        RunFolderError: the file cannot be written (no permission, disk full).
    """

    def __init__(self, path: Path, *, offset: int = 0):
        self.path = path
        self.offset = offset
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Open the file and cut it back to `offset`; nothing happens if it is open."""
        if self._file is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            self._file = self.path.open("r+b", buffering=0)
            self.offset = _cut(self._file, self.offset)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Values are strings, integers or numbers for `encode_number`."""
        self.open()
        assert self._file is not None
        encoded = {name: value if isinstance(value, str) else encode_number(value) for name, value in row.items()}
        line = json.dumps(encoded, allow_nan=False, separators=(", ", ": ")).encode() + b"\n"
        try:
            written = self._file.write(line)
            if written < len(line):  # the disk is full, or a file-size limit was reached in the middle of the line
                self._file.write(line[written:])
        except OSError as error:
            raise self._failure(error) from error
        self.offset += len(line)

    def sync(self) -> None:
        """Make sure that what was written is on the disk."""
        if self._file is None:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Sync and close the file; the next write opens it again."""
        self.sync()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _failure(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"cannot write {self.path}: {error.strerror or error}; "
            "free space or choose a writable folder with paths.output_dir=..."
        )


def _cut(file: BinaryIO, offset: int) -> int:
    """Cut a file back to `offset` bytes (or, if it is shorter, to its last whole line) and stand at its end."""
    size = file.seek(0, os.SEEK_END)
    if size < offset:  # lost or edited by hand: go on from what is there
        file.seek(0)
        offset = file.read().rfind(b"\n") + 1
    file.truncate(offset)
    file.seek(offset)
    return offset
