"""Format values and suggestions for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

RENAMED = {"method.target_neuron_sparsity": "method.target.neurons"}
"""Former name of a setting -> its current name."""
_RESEED = ("reseed_after", "write method.dictionary.reseed_after, a share of stage 1's updates (default 0.2)")
REPLACED = {"method.dictionary.reseed_every": _RESEED, "method.dictionary.usage_momentum": _RESEED}
"""Former settings replaced by one with a different meaning -> its name in the group, and what to write instead."""


def show(value: Any) -> str:
    """Return a value as shown in messages: short, with its type if that could be unclear."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return f"{text} (text)" if isinstance(value, str) and _like_number(value) else text


def _like_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest of `names`, or "" if none is close."""
    near = difflib.get_close_matches(word, list(names), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def listed(names: Sequence[str]) -> str:
    """Return "; it has a, b, c", or "" if that would be too long to read."""
    return f"; it has {', '.join(names)}" if 0 < len(names) <= 24 else ""
