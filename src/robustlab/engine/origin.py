"""Find the state from which a run starts: a checkpoint, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robustlab.core.console import say
from robustlab.core.files import remove_temporary
from robustlab.core.runtime import Runtime
from robustlab.engine.checkpoint import Checkpoints, seed_global_streams
from robustlab.engine.extension import reopen
from robustlab.engine.identity import check_resumable, has_changed, history, is_extended, run_identity
from robustlab.engine.session import Session, restore


@dataclass(frozen=True)
class Origin:
    """The state of a run folder when a run starts.

    - state: content of the checkpoint, None if there is none.
    - identity: identity of this start, including the run's history.
    - warnings: differences from earlier starts, for the user and the record.
    - has_changed: whether settings or seed differ from the checkpoint's.
    - is_extended: whether the checkpoint belongs to the same run with fewer epochs.
    """

    state: Mapping[str, Any] | None
    identity: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    has_changed: bool = False
    is_extended: bool = False

    @property
    def saved(self) -> Mapping[str, Any]:
        """The identity in the checkpoint; empty without one."""
        return {} if self.state is None else self.state["identity"]


def find_origin(cfg: DictConfig, runtime: Runtime, folder: Path, checkpoints: Checkpoints) -> Origin:
    """Read the last checkpoint of a run. Raises ConfigError if the run must not resume from it."""
    now = run_identity(cfg, runtime)
    if not runtime.is_main:
        runtime.barrier()  # reading may rename damaged files, so rank 0 goes first
    state, warnings = checkpoints.load()
    if runtime.is_main:
        remove_temporary(folder)
        runtime.barrier()
    if state is None:
        return Origin(None, now, tuple(warnings))
    saved = state["identity"]
    warnings += check_resumable(saved, now, folder=folder, force=cfg.resume == "force")
    return Origin(
        state,
        now | history(saved, now, cfg),
        tuple(warnings),
        has_changed=has_changed(saved, now),
        is_extended=is_extended(saved, cfg),
    )


def set_out(session: Session, origin: Origin, *, seed: int, folder: Path) -> None:
    """Bring a new session to the current position of its run."""
    if origin.state is None:
        seed_global_streams(seed)
        return
    restore(session, origin.state, retune=origin.has_changed)
    if origin.is_extended:
        reopen(session, origin.saved)
    say(f"resuming in {folder} at epoch {session.cursor.epoch}, step {session.cursor.step}")
