"""Save and load checkpoints: plain types only, written atomically, verified when read."""

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
    readable_size,
    remove_temporary,
    rename,
    sync_folder,
)
from robustlab.core.tensor_files import DamagedError, read_tensors, write_atomically

SCHEMA_VERSION = 2
"""Incremented with every change to the contents of checkpoints: 2 added the settings and circumstances of the run."""


class Checkpoints:
    """The checkpoints of one run: `last.pt`, the one before it, and weights chosen by selection rules.

    At any moment during a save, the newest intact file among next.pt, last.pt and previous.pt is the old or new state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last, self.previous, self._next = folder / "last.pt", folder / "previous.pt", folder / "next.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write `last.pt`; the old one becomes `previous.pt` only once the new one is completely on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._next, {"schema": SCHEMA_VERSION, **state})
        if self.last.exists():
            rename(self.last, self.previous)
        rename(self._next, self.last)
        patiently(lambda: sync_folder(self.folder))

    def save_weights(self, rule: str, state: Mapping[str, Any]) -> None:
        """Write `<rule>.pt`: weights of all learners, for inference."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{rule}.pt", state)

    def check_space(self, size: int) -> None:
        """Raise RunFolderError unless the disk has room for last.pt, previous.pt and the one being written.

        - size: bytes per checkpoint. Checkpoints already there count as available room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = sum(path.stat().st_size for path in (self.last, self.previous) if path.is_file())
        free, needed = free_bytes(self.folder), max(0, 3 * size - kept)
        if free < needed:
            raise RunFolderError(
                f"{self.folder} has {readable_size(free)} free, but checkpoints need {readable_size(needed)} more (up "
                f"to three of {readable_size(size)} at a time). Free disk space, or choose another place with "
                "paths.output_dir=..."
            )

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest intact checkpoint (None if none was ever written) and warnings about damaged ones.

        Damaged files are renamed to `*.damaged`.

        Raises RunFolderError if checkpoints exist but none is intact, since starting over silently would lose the run,
        and ConfigError for a checkpoint of another version.
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
                warnings.append(f"{error}; renamed to {aside.name}, falling back to the previous checkpoint")
        damaged = sorted(path.name for path in self.folder.glob("*.damaged*"))  # including those of earlier starts
        if damaged:
            raise RunFolderError(
                f"no intact checkpoint in {self.folder} (damaged: {', '.join(damaged)}); "
                "restore one, or start over with resume=false" + "".join(f"\n  {reason}" for reason in reasons)
            )
        return None, warnings


def read_checked(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU. Raises DamagedError, and ConfigError if another version wrote it."""
    state = read_tensors(path)
    version = state.get("schema") if isinstance(state, dict) else None
    if version is None:
        raise DamagedError(f"{path} is not a robustlab checkpoint")
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"checkpoint {path} has schema {version}, but this version of robustlab reads {SCHEMA_VERSION}; continue "
            "with the version that wrote it (its record.json names the commit), or start over with resume=false"
        )
    return state


def _free_name(path: Path) -> Path:
    """Return `path`, with the first free number appended if it is taken."""
    number = 1
    while path.exists():
        number += 1
        path = path.with_suffix(f".damaged{number}")
    return path


def seed_global_streams(seed: int) -> None:
    """Make the global random streams a function of the run's seed, regardless of what ran in this process before."""
    key = rng.fold(seed, "global streams")
    random.seed(key)
    np.random.seed(key % 2**32)
    torch.manual_seed(key)


def rng_state() -> dict[str, Any]:
    """Return the global random states, used by models with dropout but not by data and methods."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    keys = np.asarray(keys, dtype=np.int64)  # torch's safe loader does not support uint32
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
    """Restore the states that `rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    position, has_gauss, cached = state["numpy"]["rest"]
    np.random.set_state(("MT19937", state["numpy"]["keys"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
