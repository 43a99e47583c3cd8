"""Publish files in the cache folder atomically, so that a half-written one is never read."""

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
except ImportError:  # not on Windows: two processes may prepare the same file, but each publishes it atomically
    fcntl = None


def fingerprint(root: Path, files: Iterable[str], *settings: object) -> str:
    """Return a hash (16 hex digits) of the files' names, sizes and modification times, and of the settings.

    An unreadable file enters as such; reading it later gives a better error.

    - files: relative to `root`.
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
    """Return the array in `path`, memory-mapped copy-on-write; None if it is missing, incomplete or different."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, truncated, not an array
        return None
    return array if array.shape == shape and array.dtype == np.dtype(dtype) else None


def write_array(file: IO[bytes], shape: tuple[int, ...], dtype: str, blocks: Iterable[np.ndarray]) -> None:
    """Write `blocks`, concatenated along the first axis, as one .npy of `shape` to `file`."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype=dtype).data)


def cached_array(
    path: Path | None, shape: tuple[int, ...], dtype: str, blocks: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """Return the array of `shape` in `path`, made from `blocks()` the first time; made in memory if `path` is None.

    If several processes need the same array, the first one makes it and the others wait.

    Raises UnavailableError if the folder is not writable, and whatever `blocks` raises (then nothing is published).
    """
    if path is None:
        return np.concatenate(list(blocks()))
    array = read_array(path, shape, dtype)
    if array is None:
        with exclusive(path):
            array = read_array(path, shape, dtype)  # another process may have made it in the meantime
            if array is None:
                with publish(path) as file:
                    write_array(file, shape, dtype, blocks())
                array = read_array(path, shape, dtype)
    if array is None:
        raise UnavailableError(f"{path} was written but does not read back; check the disk or set paths.cache_dir")
    return array


@contextmanager
def publish(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file that becomes `path` if the block succeeds, and is deleted otherwise."""
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
    """Let one process at a time into the block, on file systems with locks."""
    with _writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("wb")
    with lock:
        if fcntl is not None:
            # some network file systems have no locks: both processes then prepare the file, which is slow but safe
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write into UnavailableError."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"cannot write the cache folder {folder} ({error.strerror or error}); "
            "free up space or set paths.cache_dir to a writable folder"
        ) from error
