"""Checkpoints: plain types only, written whole or not at all, checked when read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustlab.core import rng
from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.core.files import (
    free_bytes,
    patiently,
    remove_temporary,
    rename,
    size_in_words,
    sync_folder,
)
from robustlab.core.tensor_files import DamagedError, read_tensors, write_atomically

SCHEMA_VERSION = 2
"""Raised with every change of what a checkpoint holds: 2 came with the settings and the circumstances of the run."""


class Checkpoints:
    """The checkpoints of one run: `last.pt`, the one before it, and weights chosen by selection rules.

    At every moment of a save, the newest whole file of next.pt, last.pt and previous.pt is the old or the new state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last, self.previous, self._next = folder / "last.pt", folder / "previous.pt", folder / "next.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write `last.pt`; the former one becomes `previous.pt` only once the new one is whole on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._next, {"schema": SCHEMA_VERSION, **state})
        if self.last.exists():
            rename(self.last, self.previous)
        rename(self._next, self.last)
        patiently(lambda: sync_folder(self.folder))

    def save_weights(self, rule: str, state: Mapping[str, Any]) -> None:
        """Write `best_<rule>.pt` (or the like): weights of all learners, for inference."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{rule}.pt", state)

    def check_space(self, size: int) -> None:
        """Raise RunFolderError unless there is room for last.pt, previous.pt and the one being written, `size` each.

        What lies there already counts.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = sum(path.stat().st_size for path in (self.last, self.previous) if path.is_file())
        free, needed = free_bytes(self.folder), max(0, 3 * size - kept)
        if free < needed:
            raise RunFolderError(
                f"{self.folder} has {size_in_words(free)} free, but checkpoints need {size_in_words(needed)} more (up "
                f"to three of {size_in_words(size)} at a time). Free disk space, or choose another place with "
                "paths.output_dir=..."
            )

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest whole checkpoint (None if none was ever written) and warnings about damaged ones.

        Damaged files are moved aside as `*.damaged`. Raises RunFolderError if checkpoints exist but none is whole:
        starting over silently would lose the run; ConfigError for one of another version.
        """
        if not self.folder.is_dir():
            return None, []
        remove_temporary(self.folder)
        warnings, reasons = [], []
        for path in (self._next, self.last, self.previous):
            if not path.exists():
                continue
            try:
                return read_checked(path), warnings
            except DamagedError as error:
                aside = _free_name(path.with_suffix(".damaged"))
                rename(path, aside)
                reasons.append(str(error))
                warnings.append(f"{error}; moved aside as {aside.name}, going back to the checkpoint before it")
        damaged = sorted(path.name for path in self.folder.glob("*.damaged*"))  # of an earlier start, too
        if damaged:
            raise RunFolderError(
                f"no checkpoint in {self.folder} is whole (damaged: {', '.join(damaged)}); "
                "restore one, or start over with resume=false" + "".join(f"\n  {reason}" for reason in reasons)
            )
        return None, warnings


def read_checked(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU. Raises DamagedError, and ConfigError if another version wrote it."""
    state = read_tensors(path)
    version = state.get("schema") if isinstance(state, dict) else None
    if version is None:
        raise DamagedError(f"{path} is no checkpoint of robustlab")
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"checkpoint {path} has schema {version}, this version of robustlab reads {SCHEMA_VERSION}; go on with the "
            "version that wrote it (record.json beside it names the commit), or start over with resume=false"
        )
    return state


def _free_name(path: Path) -> Path:
    """Return `path`, or with the first number after it that is not taken."""
    number = 1
    while path.exists():
        number += 1
        path = path.with_suffix(f".damaged{number}")
    return path


def seed_global_streams(seed: int) -> None:
    """Make the global random streams a function of the run's seed, whatever ran in this process before."""
    key = rng.fold(seed, "global streams")
    random.seed(key)
    np.random.seed(key % 2**32)
    torch.manual_seed(key)


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
