"""What is in the files that settings name: a digest for each, so that no run passes for one that began from another."""

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
"""Keys that name a file, in whichever of the groups: initial weights, concepts, labels. Data sets have manifests."""

_BLOCK = 1 << 20


def contents(cfg: DictConfig) -> dict[str, str]:
    """Return 16 hex digits of the SHA-256 of each file that settings name, by the key; less those that are not there.

    Names of run folders do not depend on them: with `${seed}` in a path, seeds of one run have different files.
    """
    found: dict[str, str] = {}
    for key, path in _named(cfg):
        file = _file(path)
        try:
            status = file.stat()
            found[key] = _digest(os.path.realpath(file), status.st_size, status.st_mtime_ns)
        except OSError:  # reading it gives the better error
            continue
    return found


def changed_contents(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return the keys whose files have another content now, each in words. Nothing is said of what only one knows."""
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
    """Return the file that is read: of an exported network its tensors, of a run folder its last checkpoint."""
    place = Path(path).expanduser()
    inside = (place / name for name in ("model.safetensors", "checkpoints/last.pt"))
    return next((file for file in inside if file.is_file()), place)


@lru_cache(maxsize=64)
def _digest(path: str, size: int, changed: int) -> str:
    """Return the digest of a file; its size and time of change tell whether it is still the file that was read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:16]
