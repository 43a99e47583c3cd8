"""Copy a data set's files to node-local storage, since training reads them repeatedly (`paths.stage`).

One copy serves all processes of a node: the first one copies, the others wait. An interrupted copy is continued, file
by file, and is used only once every file has arrived completely.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from robustlab.core.errors import DataError, UnavailableError
from robustlab.data.storage.cache import exclusive, fingerprint

_AT_ONCE = 8  # files copied concurrently: network file systems have high latency, not low bandwidth


class Stage:
    """A folder on this node, e.g. $SLURM_TMPDIR, to which data sets are copied."""

    def __init__(self, folder: Path) -> None:
        """Raise UnavailableError unless `folder` exists and is writable."""
        self.folder = folder.expanduser()
        if not self.folder.is_dir():
            raise UnavailableError(
                f"paths.stage={folder} is not a folder on this node; name one that exists, e.g. $SLURM_TMPDIR, "
                "or set paths.stage=null to read the data in place"
            )
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise UnavailableError(f"paths.stage={folder} is not writable; name another folder, or null for none")

    def files(self, root: Path, files: Sequence[str]) -> Path:
        """Return a folder with copies of `files`, given relative to `root`, under the same names.

        Raises UnavailableError if the copies do not fit or cannot be written, DataError if a file is missing.
        """
        place = self.folder / "robustlab" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        complete = place / f".complete-{fingerprint(root, files)}"
        if complete.exists():
            return place
        try:
            place.mkdir(parents=True, exist_ok=True)
            with exclusive(place / "stage"):
                if not complete.exists():  # another process may have copied in the meantime
                    self._copy(root, files, place)
                    complete.touch()
        except OSError as error:
            raise UnavailableError(f"{self._failed(root)} ({error.strerror or error}); {_FIX}") from error
        return place

    def _copy(self, root: Path, files: Sequence[str], place: Path) -> None:
        """Copy every file that is missing or incomplete, and check that everything has arrived."""
        there = {file: _state(root / file) for file in dict.fromkeys(files)}
        missing = [file for file, state in there.items() if state is None]
        if missing:
            raise DataError(f"{root / missing[0]} and {len(missing) - 1} more are missing, so they cannot be staged")
        lacking = [file for file, state in there.items() if _state(place / file) != state]
        needed, free = sum((there[file] or (0, 0))[0] for file in lacking), shutil.disk_usage(self.folder).free
        if needed > free:
            raise UnavailableError(f"{self._failed(root)}: {needed:,} bytes are needed, {free:,} are free; {_FIX}")
        for folder in {(place / file).parent for file in lacking}:
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda file: _copy_file(root / file, place / file), lacking))
        short = [file for file in lacking if _state(place / file) != there[file]]
        if short:
            raise UnavailableError(f"{self._failed(root)}: {short[0]} and {len(short) - 1} more arrived incomplete")

    def _failed(self, root: Path) -> str:
        return f"{root} cannot be copied to paths.stage={self.folder}"


_FIX = "free up space, name another folder, or set paths.stage=null to read the data in place"


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file so that it appears under its name only once complete."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        shutil.copyfile(source, temporary)
        changed = source.stat().st_mtime
        os.utime(temporary, (changed, changed))  # detects a copy of an earlier version of the file
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and modification time in seconds; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, int(status.st_mtime)
