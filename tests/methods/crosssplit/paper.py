"""CrossSplit at the paper's numbers, whatever the length of a test's run."""

from collections.abc import Mapping
from typing import Any

from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit

NUMBERS: dict[str, Any] = {
    "warmup": {"epochs": 1, "data": "own_half"},
    "gamma": {"delta": 10},
    "mixup": {"alpha": 4.0, "strong": 1.0},
    "loss": {"lambda_u": 30.0},
}


def at_paper_scale(**options: Any) -> CrossSplit:
    """Return CrossSplit with `options` over `NUMBERS`; groups of options are merged."""
    merged = dict(options)
    for name, group in NUMBERS.items():
        given = options.get(name)
        assert given is None or isinstance(given, Mapping)
        merged[name] = group | dict(given or {})
    return CrossSplit(**merged)
