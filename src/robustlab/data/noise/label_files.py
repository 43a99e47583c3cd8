"""Save, load and compare files of assigned labels: stored with each run, checked on resume, shared between users."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from robustlab.core.errors import ConfigError, DataError
from robustlab.core.files import write_whole


def label_hash(labels: Tensor) -> str:
    """Return the SHA-256 of int64 labels, as little-endian bytes."""
    return hashlib.sha256(labels.cpu().numpy().astype("<i8").tobytes()).hexdigest()


def save(path: Path, assigned: Tensor, *, record: Mapping[str, Any]) -> None:
    """Write an .npz atomically with `assigned` and, as JSON text, the `record` of their origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.array(json.dumps(dict(record)))
    write_whole(path, lambda file: np.savez_compressed(file, assigned=assigned.cpu().numpy(), record=text))


def load(path: Path, key: str = "assigned") -> Tensor:
    """Return the int64 labels in an .npz (entry `key`) or .npy file; nothing pickled is ever read.

    Raises ConfigError if there is no such file or entry, DataError if the file is damaged or contains no labels.
    """
    array = _read(path, key)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{path} must hold a one-dimensional array of integers, not {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.int64))


def check_same(path: Path, assigned: Tensor, *, origin: str) -> None:
    """Raise `DataError` unless a file written by `save` equals `assigned`; `origin` describes where those come from."""
    saved, fix = load(path), "restore the original, or start over with resume=false"
    if len(saved) != len(assigned):
        raise DataError(
            f"{path} has {len(saved)} labels, but the training split has {len(assigned)}: another data set was used, "
            f"or the file was changed; {fix}"
        )
    differing = torch.nonzero(saved != assigned).flatten()
    if len(differing):
        raise DataError(
            f"{path}: {len(differing)} labels differ from those that {origin}, the first in row {int(differing[0])}; "
            f"the file or the data set has changed since the run started; {fix}"
        )


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in a file written by `save`; empty for a file with labels only."""
    if path.suffix != ".npz":
        return {}
    with np.load(path, allow_pickle=False) as archive:
        return json.loads(str(archive["record"])) if "record" in archive.files else {}


def _read(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise ConfigError(f"there is no label file {path}")
    try:
        with open(path, "rb") as file:  # np.load itself would leave a damaged file open
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            if key not in content.files:
                raise ConfigError(f"{path} has no entry {key!r}; it has {', '.join(content.files)}")
            return content[key]
    except (ValueError, OSError, EOFError, BadZipFile, KeyError) as error:
        raise DataError(f"{path} is damaged, or not an .npy or .npz file of numbers ({error})") from error
