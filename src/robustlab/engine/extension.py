"""Extend a finished run to more epochs than it was planned for, if its method allows that.

The run continues from its final state: weights, optimizer moments, moving averages, data order and random streams.
Learning rates follow the schedule of the new length from here on: a cosine over 4 epochs has ended at zero, one over 8
is half way down. The result therefore differs from 8 epochs in one go, and is marked `extended_from`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustlab.config.occupant import EPOCHS
from robustlab.core.errors import ConfigError
from robustlab.engine.method import Method
from robustlab.engine.session import Session


def refuse_extension(method: Method, identity: Mapping[str, Any], *, name: str, steps: int | None) -> None:
    """Raise ConfigError unless more epochs simply prolong the method's only stage.

    - identity: identity of the run so far.
    - name: name of the method.
    - steps: value of trainer.max_steps.
    """
    stages = [stage.name for stage in method.stages()]
    reason = method.not_extendable
    if reason is None and len(stages) != 1:
        reason = f"it trains in {len(stages)} stages ({', '.join(stages)}), and trainer.epochs sets only one of them"
    if reason is None and steps is not None:
        reason = f"trainer.max_steps={steps} ends it"
    if reason is not None:
        raise ConfigError(
            f"method={name}: a run of {identity['settings'][EPOCHS]} epochs cannot be extended: {reason}; train the "
            "longer run from the start, in another folder"
        )


def reopen(session: Session, identity: Mapping[str, Any]) -> None:
    """Put a session, restored from the end of its only stage, back into that stage."""
    if session.cursor.stage:
        session.cursor.stage, session.cursor.epoch = 0, identity["settings"][EPOCHS]
