"""Settings of pruning methods that are right one by one and wrong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustlab.pruning.removal_rules import MEASURES, floor_problem, target_problem


def pruning_target_is_one(cfg: Mapping[str, Any]) -> list[str]:
    """The amount to prune is given by exactly one measure."""
    target = cfg["method"].get("target")
    if not isinstance(target, Mapping) or not set(target) <= set(MEASURES):
        return []
    problem = target_problem(target)
    return [] if problem is None else [problem]


def floor_fits_surgery(cfg: Mapping[str, Any]) -> list[str]:
    """A layer's penalty must stop before surgery stops at `min_width`."""
    reg, surgery = cfg["method"].get("reg"), cfg["method"].get("surgery")
    if not isinstance(reg, Mapping) or not isinstance(surgery, Mapping):
        return []
    least, enabled = surgery.get("min_width", 1), surgery.get("enabled", True)
    problem = floor_problem(reg.get("floor"), min_width=least, enabled=enabled)
    return [] if problem is None else [problem]


RULES = (pruning_target_is_one, floor_fits_surgery)
