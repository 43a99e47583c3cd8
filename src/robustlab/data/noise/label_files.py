"""Files of assigned labels: saved with each run, compared when it resumes, shared between users."""

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
    """Write an .npz with `assigned` and, as JSON text, the `record` of how they came about; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.array(json.dumps(dict(record)))
    write_whole(path, lambda file: np.savez_compressed(file, assigned=assigned.cpu().numpy(), record=text))


def load(path: Path, key: str = "assigned") -> Tensor:
    """Return the int64 labels in an .npz (entry `key`) or .npy file; nothing pickled is ever read.

    Raises ConfigError where there is no such file or entry, DataError where the file is damaged or holds no labels.
    """
    array = _read(path, key)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{path} must hold a one-dimensional array of integers, not {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.int64))


def check_same(path: Path, assigned: Tensor, *, origin: str) -> None:
    """Raise `DataError` unless a file written by `save` holds `assigned`; `origin` says what gave those."""
    saved, mend = load(path), "put it back as it was, or start anew with resume=false"
    if len(saved) != len(assigned):
        raise DataError(
            f"{path} holds {len(saved)} labels, the training split has {len(assigned)}: another data set was used, or "
            f"the file was altered; {mend}"
        )
    differing = torch.nonzero(saved != assigned).flatten()
    if len(differing):
        raise DataError(
            f"{path}: {len(differing)} labels differ from those that {origin}, the first in row {int(differing[0])}; "
            f"the file or the data set was altered since the run began; {mend}"
        )


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in a file written by `save`; empty for a file of labels alone."""
    if path.suffix != ".npz":
        return {}
    with np.load(path, allow_pickle=False) as archive:
        return json.loads(str(archive["record"])) if "record" in archive.files else {}


def _read(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise ConfigError(f"there is no label file {path}")
    try:
        with open(path, "rb") as file:  # np.load would leave a damaged file open
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            if key not in content.files:
                raise ConfigError(f"{path} has no entry {key!r}; it has {', '.join(content.files)}")
            return content[key]
    except (ValueError, OSError, EOFError, BadZipFile, KeyError) as error:
        raise DataError(f"{path} is damaged or no .npy or .npz file of numbers ({error})") from error
