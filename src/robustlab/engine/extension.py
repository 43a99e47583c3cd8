"""Training a run for more epochs than it was planned for: what that means, and for which methods it is defined.

The run goes on where it stands: weights, moments, moving averages, the order of the data and the random streams are
those of a run that has come that far. Learning rates are those that the schedule of the new length has at this point: a
cosine over 4 epochs has ended at zero, and one over 8 is half way down. So the result is not that of 8 epochs in one
go, and is marked `extended_from`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustlab.config.occupant import EPOCHS
from robustlab.core.errors import ConfigError
from robustlab.engine.method import Method
from robustlab.engine.session import Session


def refuse_extension(method: Method, identity: Mapping[str, Any], *, name: str, steps: int | None) -> None:
    """Raise ConfigError unless more epochs mean for a method that its only stage goes on.

    identity: of the run so far. name: of the method. steps: of trainer.max_steps.
    """
    stages = [stage.name for stage in method.stages()]
    reason = method.not_extendable
    if reason is None and len(stages) != 1:
        reason = f"it trains in {len(stages)} stages ({', '.join(stages)}), of which trainer.epochs sets one"
    if reason is None and steps is not None:
        reason = f"trainer.max_steps={steps} ends it"
    if reason is not None:
        raise ConfigError(
            f"method={name}: a run of {identity['settings'][EPOCHS]} epochs cannot be extended: {reason}; train the "
            "longer run from its beginning, in another folder"
        )


def reopen(session: Session, identity: Mapping[str, Any]) -> None:
    """Put a session that was restored from the end of its only stage back into that stage."""
    if session.cursor.stage:
        session.cursor.stage, session.cursor.epoch = 0, identity["settings"][EPOCHS]
