"""Store encoded images back to back in one file, so that workers can read any of them without unpacking its shard."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from robustlab.core.errors import ConfigError
from robustlab.data.storage.cache import exclusive, publish, read_array, write_array
from robustlab.data.storage.encoded_images import EncodedImages
from robustlab.data.storage.staging import Stage


def packed(path: Path, count: int, rows: Callable[[], Iterable[tuple[str, bytes | None]]]) -> Path:
    """Return `path`, which holds the bytes of `count` images back to back, writing it from `rows()` if necessary.

    The offsets, (count + 1,) int64, are in the file of the same name with .npy, which is published last; the pair is
    only used if both fit together.
    """
    if not _whole(path, count):
        with exclusive(path):
            if not _whole(path, count):
                offsets = np.zeros(count + 1, dtype=np.int64)
                with publish(path) as file:
                    for row, (_, data) in enumerate(rows()):
                        offsets[row + 1] = offsets[row] + file.write(data or b"")
                with publish(path.with_suffix(".npy")) as file:
                    write_array(file, offsets.shape, "int64", [offsets])
    return path


def _whole(path: Path, count: int) -> bool:
    offsets = read_array(path.with_suffix(".npy"), (count + 1,), "int64")
    return offsets is not None and path.is_file() and path.stat().st_size == offsets[-1]


class BlobImages(EncodedImages):
    """Images in a file written by `packed`; each process opens it separately, so pickling only sends its name."""

    def __init__(self, path: Path, shards: list[tuple[str, int]], channels: int) -> None:
        """Open the file.

        - shards: name and number of rows of the original files, for messages.
        """
        super().__init__(channels)
        self._path, self._shards = path, shards
        self._names = [name for name, _ in shards]
        self._ends = list(accumulate(rows for _, rows in shards))
        self._open()

    def _open(self) -> None:
        offsets = read_array(self._path.with_suffix(".npy"), (self._ends[-1] + 1,), "int64")
        if offsets is None or not self._path.is_file():
            raise ConfigError(f"{self._path} has vanished from the cache; run the command again to rebuild it")
        self._offsets = offsets
        self._bytes = np.memmap(self._path, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        """Return the number of images."""
        return self._ends[-1]

    def encoded(self, index: int) -> tuple[str, bytes]:
        """Return the original shard and row of an image, and its bytes."""
        shard = bisect_right(self._ends, index)
        row = index - (self._ends[shard - 1] if shard else 0)
        begin, end = int(self._offsets[index]), int(self._offsets[index + 1])
        return f"{self._names[shard]} row {row}", self._bytes[begin:end].tobytes()

    def staged(self, stage: Stage) -> BlobImages:
        """Return the same images, read from a copy on this node."""
        names = [self._path.name, self._path.with_suffix(".npy").name]
        return BlobImages(stage.files(self._path.parent, names) / self._path.name, self._shards, self.channels)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open files."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_offsets", "_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state and reopen the files."""
        for key, value in state.items():
            setattr(self, key, value)
        self._open()
