"""Choose the default experiment, for command lines that choose nothing to train."""

from __future__ import annotations

import re
from collections.abc import Sequence

DEFAULT_EXPERIMENT = "crosssplit/digits_sym50"
"""Half of its labels are noisy, so it must never apply to a data set, model or method that a user chose."""

CHOOSING = ("experiment", "setting", "dataset", "noise", "model", "features", "method")
"""Groups that turn the default experiment off when chosen. The other groups say how to train, not what."""

_CHOSEN = re.compile(rf"[+~]*({'|'.join(CHOOSING)})(@[^=]*)?(=.*)?", re.DOTALL)
_SWEPT = re.compile(rf"\b({'|'.join(CHOOSING)})\b(?!\.)")


def with_default_experiment(overrides: Sequence[str]) -> list[str]:
    """Return the overrides, followed by the default experiment if none of them names an option of `CHOOSING`.

    Values such as `method.warmup.epochs=3` do not count as a choice. Applying the function twice changes nothing.
    """
    return list(overrides) if any(map(_chooses, overrides)) else [*overrides, f"experiment={DEFAULT_EXPERIMENT}"]


def _chooses(override: str) -> bool:
    if override.lstrip("+").startswith("hydra.sweeper.params"):
        return _SWEPT.search(override.removeprefix("+").removeprefix("hydra.sweeper.params")) is not None
    return _CHOSEN.fullmatch(override) is not None
