"""Write files atomically, even if disks fill up or network file systems fail temporarily."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from robustlab.core.errors import RunFolderError

T = TypeVar("T")

PASSING = frozenset({errno.EIO, errno.ESTALE, errno.EINTR, errno.EAGAIN})
"""Errors that network file systems return occasionally for calls that succeed a moment later."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors for a full disk, an exceeded quota, or an exceeded file-size limit."""
WAITS = (0.1, 0.5, 2.0)
"""Seconds before the second, third and last attempt."""


def patiently(action: Callable[[], T]) -> T:
    """Return the result of `action`, retrying up to three times after temporary errors, with increasing delays."""
    for wait in WAITS:
        try:
            return action()
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(wait)
    return action()


def write_whole(path: Path, write: Callable[[IO[bytes]], object], *, size: int | None = None) -> None:
    """Let `write` fill a file so that at any moment `path` is missing, the old file, or the new one.

    The temporary file lies in the same folder (a rename across file systems would be a copy), is fsynced, renamed, and
    the folder fsynced. After a temporary error everything is repeated, since the effect of a failed fsync is unknown.
    size: bytes that are wanted, for the message. Raises RunFolderError; nothing temporary is left then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def attempt() -> None:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)

    try:
        patiently(attempt)
    except OSError as error:
        raise RunFolderError(f"could not write {path}: {_reason(error, path, size)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file in UTF-8 atomically. Raises RunFolderError."""
    write_whole(path, lambda file: file.write(text.encode()), size=len(text))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON atomically. Raises RunFolderError."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; if the block fails, remove the empty ones again."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for one in missing:
            with suppress(OSError):
                one.rmdir()
        raise


def rename(source: Path, target: Path) -> None:
    """Rename within a folder. Raises RunFolderError, but not if only the confirmation of a success got lost."""

    def attempt() -> None:
        if source.exists() or not target.exists():
            os.replace(source, target)

    try:
        patiently(attempt)
    except OSError as error:
        raise RunFolderError(f"could not rename {source} to {target.name}: {_reason(error, target, None)}") from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's directory entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary(folder: Path) -> None:
    """Remove temporary files left in a folder by killed writers; only the holder of its lock may call this."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def readable_size(count: float) -> str:
    """Write a number of bytes for people: "512 B", "3.1 MB", "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def free_bytes(folder: Path) -> int:
    """Return the free bytes of a file system for this user, ignoring quotas that it does not report."""
    return shutil.disk_usage(folder).free


def _reason(error: OSError, path: Path, size: int | None) -> str:
    """Describe the system's error, the needed and available space, and what to do."""
    said = error.strerror or str(error)
    if error.errno not in FULL:
        return f"{said}. Fix the file system, or choose another place with paths.output_dir=..., and run it again"
    needed = "" if size is None else f"{readable_size(size)} needed, "
    return (
        f"{said} ({needed}{readable_size(free_bytes(path.parent))} free, quotas and limits on files aside). Free disk "
        "space or quota and run the same command again; it goes on from the last checkpoint, which is intact"
    )
