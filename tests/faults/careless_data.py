"""Negative controls: how data are read where nobody thought of damage, of other machines or of a second process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from torch import Tensor, zeros

from robustlab.core.errors import DataError
from robustlab.data.sources.file_source import FileImages


class Substitute(FileImages):
    """A black image in the place of one that does not decode."""

    def decode(self, index: int) -> Tensor:
        try:
            return super().decode(index)
        except DataError:
            return zeros((self.channels, 8, 8)).byte()


def listed_as_found(folder: Path) -> list[str]:
    """Files in the order of the file system."""
    return next(os.walk(folder))[2]


def cached_in_place(path: Path, count: int, blocks: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """A cache that is written under its own name, and taken for whole because it is there."""
    if not path.exists():
        with open(path, "wb") as file:
            for block in blocks():
                file.write(block.tobytes())
    return np.fromfile(path, np.uint8, count)
