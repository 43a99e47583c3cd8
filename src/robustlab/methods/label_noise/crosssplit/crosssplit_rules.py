"""Settings of CrossSplit that are right one by one and wrong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def warmup_ends_before_training(cfg: Mapping[str, Any]) -> list[str]:
    """A warm-up must not take up all epochs."""
    epochs, total = cfg["method"]["warmup"]["epochs"], cfg["trainer"]["epochs"]
    if not isinstance(epochs, int) or epochs < total:
        return []
    return [
        f"method.warmup.epochs: {epochs} warm-up epochs use up all of trainer.epochs={total}; lower the first or raise "
        "the second"
    ]


RULES = (warmup_ends_before_training,)
