"""Describe the label noise of a run on one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustlab.core.console import percent


def noise_line(record: Mapping[str, Any], *, samples: int) -> str:
    """Return one line about the labels that a run trains on.

    - record: as returned by `Data.noise_record`.
    - samples: number of training samples.
    """
    wrong, name, rate = record["num_wrong"], record["name"], record["rate"]
    if record["model"] is None and wrong == 0:
        return f"training labels: clean (noise={name})"
    nominal = "" if rate is None else f" (nominal rate {percent(rate)})"
    head = f"training labels: noise={name}{nominal}"
    if wrong is None:
        return f"{head}; it is unknown how many of the {samples:,} labels are wrong"
    return f"{head}; {wrong:,} of {samples:,} labels are wrong ({percent(record['true_rate'])})"
