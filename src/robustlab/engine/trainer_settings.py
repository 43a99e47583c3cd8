"""Read the keys of `trainer` that the loop and the learners use.

`Runtime.from_config` reads the keys about the machine; `epochs` and `batch_size` reach the method through `Context`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the loop. `selection`: the configured rules and those added by the data; see `rules_for`."""

    eval_batch_size: int = 512
    log_every: int = 20
    evaluate_every: int = 1
    max_steps: int | None = None
    selection: Sequence[str] = ("last", "mean_last10", "best_test")
    checkpoint_seconds: float | None = 120.0
    checkpoint_steps: int | None = None

    @classmethod
    def from_config(cls, trainer: Any, *, selection: Sequence[str]) -> LoopSettings:
        """Return the loop's settings from the node `trainer`."""
        return cls(
            eval_batch_size=trainer.eval_batch_size,
            log_every=trainer.log_every,
            evaluate_every=trainer.evaluate_every,
            max_steps=trainer.max_steps,
            selection=selection,
            checkpoint_seconds=trainer.checkpoint.every_seconds,
            checkpoint_steps=trainer.checkpoint.every_steps,
        )


@dataclass(frozen=True)
class LearnerSettings:
    """Settings shared by all learners of a run; see `Learner`."""

    accumulate: int
    clip_norm: float | None
    ema_decay: float | None

    @classmethod
    def from_config(cls, trainer: Any) -> LearnerSettings:
        """Return the learners' settings from the node `trainer`."""
        return cls(accumulate=trainer.accumulate, clip_norm=trainer.clip_norm, ema_decay=trainer.ema_decay)
