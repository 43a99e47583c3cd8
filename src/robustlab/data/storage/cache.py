"""Files under the cache folder: published whole or not at all, so that a half-written one is never read."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from robustlab.core.errors import UnavailableError

try:
    import fcntl
except ImportError:  # no such locks on Windows: two processes may both prepare, each still publishes atomically
    fcntl = None


def fingerprint(root: Path, files: Iterable[str], *settings: object) -> str:
    """Return a hash (16 hex digits) of the files' names, sizes and times of change, and of the settings.

    files: relative to `root`. A file that cannot be read counts as such: reading it gives the better error.
    """
    digest = hashlib.sha256(repr((str(root.resolve()), *settings)).encode())
    for file in files:
        try:
            status = os.stat(root / file)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError as error:
            state = f"error {error.errno}"
        digest.update(f"\0{file}\0{state}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def read_array(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    """Return the array in `path`, memory-mapped copy-on-write; None if it is absent or not whole or another one."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, cut short, not an array
        return None
    return array if array.shape == shape and array.dtype == np.dtype(dtype) else None


def write_array(file: IO[bytes], shape: tuple[int, ...], dtype: str, blocks: Iterable[np.ndarray]) -> None:
    """Write `blocks`, which follow each other along the first axis, as one .npy of `shape` to `file`."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype=dtype).data)


def cached_array(
    path: Path | None, shape: tuple[int, ...], dtype: str, blocks: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """Return the array of `shape` in `path`, made from `blocks()` the first time; made in memory if `path` is None.

    Processes that need the same array at the same time wait for the first and read what it made. Raises
    UnavailableError if the folder cannot be written, and whatever `blocks` raises (nothing is published then).
    """
    if path is None:
        return np.concatenate(list(blocks()))
    array = read_array(path, shape, dtype)
    if array is None:
        with exclusive(path):
            array = read_array(path, shape, dtype)  # another process may have made it meanwhile
            if array is None:
                with publish(path) as file:
                    write_array(file, shape, dtype, blocks())
                array = read_array(path, shape, dtype)
    if array is None:
        raise UnavailableError(f"{path} was written but does not read back; check the disk or set paths.cache_dir")
    return array


@contextmanager
def publish(path: Path) -> Iterator[IO[bytes]]:
    """Give a temporary file that becomes `path` when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _writable(path.parent), temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a power cut after the rename must not leave an empty file under the final name
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time into the block, on file systems that have locks."""
    with _writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("wb")
    with lock:
        if fcntl is not None:
            # some network file systems have no locks: there both processes prepare, which is slow but safe
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write into a sentence."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"cannot write the cache folder {folder} ({error.strerror or error}); "
            "make room or set paths.cache_dir to a folder that can be written"
        ) from error
