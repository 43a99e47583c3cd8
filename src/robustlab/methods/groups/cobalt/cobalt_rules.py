"""Settings of CoBalT that are right one by one and wrong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def frozen_features_have_no_places(cfg: Mapping[str, Any]) -> list[str]:
    """CoBalT's first stage needs spatial positions, which pooled features lack."""
    method = cfg["method"]
    if not cfg.get("features") or method.get("artifact"):
        return []
    return [
        "method.artifact: stage 1 of CoBalT needs images, but features=frozen gives only pooled features; use the "
        "concepts of a run without it, method.artifact=<its folder>/concepts.pt, or leave features=frozen out"
    ]


RULES = (frozen_features_have_no_places,)
