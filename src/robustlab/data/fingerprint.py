"""Hash the samples of a split and their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from robustlab.data.dataset import Split

_IMAGES_AT_ONCE = 4096


def fingerprint(split: Split, rows: Tensor | None = None) -> str:
    """Return the SHA-256 (hex) of the samples' labels and names, or of their images if they have no names.

    Named files are not read, so replacing an image under the same name goes unnoticed. Lazy images without names are
    decoded for this.

    - rows: samples to hash, in order, int64; None for all.
    """
    rows = torch.arange(len(split.labels)) if rows is None else rows
    digest = hashlib.sha256()
    for part in _parts(split, rows):
        digest.update(f"{len(part)}:".encode() + part)
    digest.update(split.labels.cpu()[rows].to(torch.int64).numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _parts(split: Split, rows: Tensor) -> Iterator[bytes]:
    """Yield the bytes that identify the samples, in order."""
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
