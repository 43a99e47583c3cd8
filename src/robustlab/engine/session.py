"""`Session`: the state of one call of `fit`, and how it is saved and restored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from robustlab.core.errors import ConfigError, NumericalError
from robustlab.core.runtime import Runtime
from robustlab.core.signals import StopFlag
from robustlab.data.run_data import Data
from robustlab.engine.checkpoint import Checkpoints, rng_state, set_rng_state
from robustlab.engine.diagnostic import Diagnostic
from robustlab.engine.meter import Meter
from robustlab.engine.method import Method
from robustlab.engine.selection import Selection
from robustlab.engine.trainer_settings import LoopSettings
from robustlab.tracking.progress import Progress
from robustlab.tracking.trackers import Trackers


@dataclass
class Cursor:
    """The position of a run: the next step, and the work done so far."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    global_step: int = 0
    samples: int = 0
    seconds: float = 0.0


@dataclass
class Session:
    """The parts and state of one call of `fit`; only `cursor`, `meter`, `selection` and the method change."""

    method: Method
    data: Data
    runtime: Runtime
    trackers: Trackers
    progress: Progress
    checkpoints: Checkpoints
    settings: LoopSettings
    stop: StopFlag
    identity: Mapping[str, Any]
    diagnostics: Mapping[str, Diagnostic] = field(default_factory=dict)
    cursor: Cursor = field(default_factory=Cursor)
    final: dict[str, float] = field(default_factory=dict)
    stage_ends: dict[str, dict[str, float]] = field(default_factory=dict)
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Create the parts that follow from the others."""
        self.meter = Meter(self.runtime)
        self.selection = Selection(self.settings.selection)

    @property
    def reached_max_steps(self) -> bool:
        """Whether trainer.max_steps has been reached."""
        return self.settings.max_steps is not None and self.cursor.global_step >= self.settings.max_steps

    @property
    def is_over(self) -> bool:
        """Whether trainer.max_steps has been reached and the epoch it fell into has been closed."""
        return self.reached_max_steps and self.cursor.step == 0


def save(session: Session) -> None:
    """Write a checkpoint of the session. Raises NumericalError instead if a pending loss or weight is NaN."""
    meter = session.meter.state_dict()
    _refuse_broken_weights(session)
    session.trackers.sync()
    own = {"rng": rng_state(), "method": session.method.state_dict()}
    own["diagnostics"] = {name: one.state_dict() for name, one in session.diagnostics.items()}
    if session.runtime.world_size > 1:  # until the end of an epoch each rank has its own BatchNorm statistics
        own["buffers"] = {
            name: {key: value.cpu() for key, value in one.network.named_buffers()}
            for name, one in session.method.learners.items()
        }
    ranks = session.runtime.gather(own)
    if session.runtime.is_main:
        for rule, snapshot in session.selection.snapshots.items():
            session.checkpoints.save_weights(rule, snapshot)
        session.checkpoints.save(
            {
                "identity": dict(session.identity),
                "cursor": asdict(session.cursor),
                "learners": {name: learner.state_dict() for name, learner in session.method.learners.items()},
                "meter": meter,
                "selection": session.selection.state_dict(),
                "final": session.final,
                "stage_ends": session.stage_ends,
                "trackers": session.trackers.state_dict(),
                "ranks": ranks,
            }
        )
    session.selection.snapshots.clear()
    session.runtime.barrier()
    session.saved_at = time.monotonic()


def check_space(session: Session) -> None:
    """Raise RunFolderError unless the disk has room for the session's checkpoints, before hours are spent on it."""
    if session.runtime.is_main:
        session.checkpoints.check_space(sum(learner.state_bytes() for learner in session.method.learners.values()))


def _refuse_broken_weights(session: Session) -> None:
    """Raise NumericalError if an update broke the weights, which the loss computed before it does not show."""
    broken = [name for name, learner in session.method.learners.items() if not learner.is_finite()]
    if session.runtime.any_rank(bool(broken)):
        raise NumericalError(
            f"weights of {', '.join(broken) or 'another rank'} became NaN or infinite by global step "
            f"{session.cursor.global_step - 1}; the last good checkpoint is kept. Lower optimizer.lr, set "
            "trainer.clip_norm, or use trainer.precision=fp32, and run the command again"
        )


def restore(session: Session, state: Mapping[str, Any], *, retune: bool = False) -> None:
    """Restore a session from a checkpoint (trackers are restored when they are built).

    - retune: use learning rates and the like from the current settings at this point, not the saved ones.

    Raises ConfigError if the checkpoint does not fit the networks or the method.
    """
    session.cursor = Cursor(**state["cursor"])
    for name, learner in session.method.learners.items():
        try:
            learner.load_state_dict(state["learners"][name], retune=retune)
        except (RuntimeError, ValueError, KeyError) as error:  # torch raises these if names or shapes differ
            said = "\n".join(str(error).splitlines()[:8])
            raise ConfigError(
                f"the checkpoint does not fit the network {name!r} of these settings: {said}\nContinue with the code "
                "and settings that saved it, or start over with resume=false"
            ) from error
    ranks = state["ranks"]  # with a different number of ranks, all continue from rank 0's state
    own = ranks[session.runtime.rank if session.runtime.world_size == len(ranks) else 0]
    for name, buffers in own.get("buffers", {}).items():
        session.method.learners[name].load_buffers(buffers)
    try:
        session.method.load_state_dict(own["method"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"the checkpoint does not fit the method of these settings ({type(error).__name__}: {error}); continue "
            "with the method that saved it, or start over with resume=false"
        ) from error
    for name, saved in own.get("diagnostics", {}).items():  # absent from checkpoints of earlier versions
        if name in session.diagnostics:
            session.diagnostics[name].load_state_dict(saved)
    session.meter.load_state_dict(state["meter"])
    session.selection.load_state_dict(state["selection"])
    session.final = dict(state["final"])
    session.stage_ends = dict(state.get("stage_ends", {}))  # absent from checkpoints of earlier versions
    set_rng_state(own["rng"])
