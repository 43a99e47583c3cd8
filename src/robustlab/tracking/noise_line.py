"""The label noise of a run, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustlab.core.console import percent


def noise_line(record: Mapping[str, Any], *, samples: int) -> str:
    """Return which labels a run trains on, in one line. record: of `Data.noise_record`; samples: in training."""
    wrong, name, rate = record["num_wrong"], record["name"], record["rate"]
    if record["model"] is None and wrong == 0:
        return f"training labels: clean (noise={name})"
    nominal = "" if rate is None else f" (nominal rate {percent(rate)})"
    head = f"training labels: noise={name}{nominal}"
    if wrong is None:
        return f"{head}; how many of the {samples:,} labels are wrong is not known"
    return f"{head}; {wrong:,} of {samples:,} labels are wrong ({percent(record['true_rate'])})"
