"""Digest the files that settings name, so that a run cannot resume from a run that read different content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_GROUPS = ("model", "features", "method", "noise")
_NAMES = frozenset({"weights", "artifact", "file"})
"""Keys that name a file, in any group: initial weights, concepts, labels. Data sets have manifests instead."""

_BLOCK = 1 << 20


def contents(cfg: DictConfig) -> dict[str, str]:
    """Return key -> first 16 hex digits of the SHA-256 of the file it names, for files that exist.

    Names of run folders do not depend on these: with `${seed}` in a path, the seeds of one run have different files.
    """
    found: dict[str, str] = {}
    for key, path in _named(cfg):
        file = _file(path)
        try:
            status = file.stat()
            found[key] = _digest(os.path.realpath(file), status.st_size, status.st_mtime_ns)
        except OSError:  # whoever reads it later gives a better error
            continue
    return found


def changed_contents(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return key -> message for each file whose content has changed; keys known on only one side are skipped."""
    differing = [key for key in before if key in now and before[key] != now[key]]
    return {
        key: f"{key}: the file had the content {before[key]} (SHA-256) when it was saved, and has {now[key]} now"
        for key in differing
    }


def _named(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    for group in _GROUPS:
        node = cfg.get(group)
        if isinstance(node, DictConfig):
            yield from _paths(OmegaConf.to_container(node, resolve=True), group)


def _paths(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _NAMES and isinstance(item, str):
                yield f"{where}.{key}", item
            else:
                yield from _paths(item, f"{where}.{key}")


def _file(path: str) -> Path:
    """Return the file that is actually read: an exported network's tensors, or a run folder's last checkpoint."""
    place = Path(path).expanduser()
    inside = (place / name for name in ("model.safetensors", "checkpoints/last.pt"))
    return next((file for file in inside if file.is_file()), place)


@lru_cache(maxsize=64)
def _digest(path: str, size: int, changed: int) -> str:
    """Return the digest of a file; size and modification time are part of the cache key."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:16]
