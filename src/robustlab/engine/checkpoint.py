"""Checkpoints: plain types only, written whole or not at all, checked when read."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustlab.errors import RunFolderError

SCHEMA_VERSION = 1


def write_atomically(path: Path, state: Mapping[str, Any]) -> None:
    """Save `state` so that `path` is at every moment absent, the old file, or the new one (fsync, then rename).

    The temporary file lies in the same folder: a rename across file systems would be a copy. Raises RunFolderError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        raise RunFolderError(
            f"could not write {path} ({str(error).splitlines()[0]}): the earlier checkpoint is intact. "
            "Free disk space or quota and run the same command again"
        ) from error


class Checkpoints:
    """The checkpoints of one run: `last.pt`, the one before it, and weights chosen by selection rules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last, self.previous = folder / "last.pt", folder / "previous.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write `last.pt`; the former one becomes `previous.pt` only once the new one is whole on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / "next.pt"
        write_atomically(new, {"schema": SCHEMA_VERSION, **state})
        if self.last.exists():
            os.replace(self.last, self.previous)
        os.replace(new, self.last)
        _sync_folder(self.folder)

    def save_weights(self, rule: str, state: Mapping[str, Any]) -> None:
        """Write `best_<rule>.pt` (or the like): weights of all learners, for inference."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{rule}.pt", state)

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest whole checkpoint (None if none was ever written) and warnings about damaged ones.

        Damaged files are moved aside as `*.damaged`. Raises RunFolderError if checkpoints exist but none is whole:
        starting over silently would lose the run.
        """
        if not self.folder.is_dir():
            return None, []
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink()
        warnings: list[str] = []
        found = [path for path in (self.folder / "next.pt", self.last, self.previous) if path.exists()]
        for path in found:
            try:
                return read_checked(path), warnings
            except RunFolderError as error:
                aside = path.with_suffix(".damaged")
                os.replace(path, aside)
                warnings.append(f"{error}; moved aside as {aside.name}, going back to the checkpoint before it")
        damaged = sorted(path.name for path in self.folder.glob("*.damaged"))  # of an earlier start, too
        if damaged:
            raise RunFolderError(
                f"no checkpoint in {self.folder} is whole (damaged: {', '.join(damaged)}); "
                "restore one, or start over with resume=false"
            )
        return None, warnings


def read_checked(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU. Raises RunFolderError if it is damaged, foreign or more than plain types."""
    state = read_tensors(path)
    if not isinstance(state, dict) or state.get("schema") != SCHEMA_VERSION:
        raise RunFolderError(f"checkpoint {path} was written by another version of robustlab")
    return state


def read_tensors(path: Path) -> Any:
    """Load tensors and plain types onto the CPU. Raises RunFolderError if the file is damaged or holds anything else.

    torch.load itself does not notice flipped bytes, so the CRC of every record is verified first.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise RunFolderError(f"checkpoint {path} is damaged (record {broken} fails its checksum)")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, pickle.UnpicklingError, zipfile.LargeZipFile) as error:
        raise RunFolderError(f"checkpoint {path} cannot be read ({str(error).splitlines()[0][:200]})") from error


def rng_state() -> dict[str, Any]:
    """Return the global random states (models with dropout use them; data and methods do not)."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    keys = np.asarray(keys, dtype=np.int64)  # torch's safe loader knows no uint32
    return {
        "python": random.getstate(),
        "numpy": {
            "keys": torch.from_numpy(keys),
            "rest": [int(position), int(has_gauss), float(gauss)],
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Take back what `rng_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    position, has_gauss, cached = state["numpy"]["rest"]
    np.random.set_state(("MT19937", state["numpy"]["keys"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
