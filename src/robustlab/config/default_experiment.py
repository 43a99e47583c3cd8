"""The experiment of a command line that chooses nothing to train; whatever a user chooses does not inherit it."""

from __future__ import annotations

import re
from collections.abc import Sequence

DEFAULT_EXPERIMENT = "crosssplit/digits_sym50"
"""Half of its labels are noise, so it must not follow a data set, a model or a method that somebody chose."""

CHOOSING = ("experiment", "setting", "dataset", "noise", "model", "features", "method")
"""Groups of which naming one leaves the default experiment out. The other groups say how to train, not what."""

_CHOSEN = re.compile(rf"[+~]*({'|'.join(CHOOSING)})(@[^=]*)?(=.*)?", re.DOTALL)
_SWEPT = re.compile(rf"\b({'|'.join(CHOOSING)})\b(?!\.)")


def with_default_experiment(overrides: Sequence[str]) -> list[str]:
    """Return the overrides, with the default experiment at their end if none of them names an option of `CHOOSING`.

    Values such as `method.warmup.epochs=3` are no choice: they are set in what is there. Applying it twice changes
    nothing.
    """
    return list(overrides) if any(map(_chooses, overrides)) else [*overrides, f"experiment={DEFAULT_EXPERIMENT}"]


def _chooses(override: str) -> bool:
    if override.lstrip("+").startswith("hydra.sweeper.params"):
        return _SWEPT.search(override.removeprefix("+").removeprefix("hydra.sweeper.params")) is not None
    return _CHOSEN.fullmatch(override) is not None
