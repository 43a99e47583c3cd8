"""Which samples a split holds, and in which order, as one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from robustlab.data.dataset import Split

_IMAGES_AT_ONCE = 4096


def fingerprint(split: Split, rows: Tensor | None = None) -> str:
    """Return the SHA-256 (hex) of the samples' names, or of their images where they have none, and of their labels.

    rows: int64, the samples in question, in order; None = all. Named files are not read: a picture that is replaced
    under its name goes unnoticed. Images that are decoded on demand and have no names are decoded for this.
    """
    rows = torch.arange(len(split.labels)) if rows is None else rows
    digest = hashlib.sha256()
    for part in _parts(split, rows):
        digest.update(f"{len(part)}:".encode() + part)
    digest.update(split.labels.cpu()[rows].to(torch.int64).numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _parts(split: Split, rows: Tensor) -> Iterator[bytes]:
    """Yield what tells the samples apart, in order."""
    if split.names is not None:
        for row in rows.tolist():
            yield split.names[row].encode(errors="surrogateescape")
    elif isinstance(split.images, Tensor):
        for some in rows.split(_IMAGES_AT_ONCE):
            images = split.images[some].cpu().contiguous()
            yield repr(tuple(images.shape)).encode() + images.numpy().tobytes()
    else:
        for row in rows.tolist():
            image = split.images.decode(row).contiguous()
            yield repr(tuple(image.shape)).encode() + image.numpy().tobytes()
