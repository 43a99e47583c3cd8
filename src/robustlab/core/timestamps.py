"""Write and read the timestamps of records and results in one format."""

from __future__ import annotations

import time
from datetime import datetime

FORMAT = "%Y-%m-%dT%H:%M:%S%z"


def timestamp() -> str:
    """Return the current local time with its UTC offset."""
    return time.strftime(FORMAT)


def is_before(one: str, other: str) -> bool:
    """Return whether one time is before another; False if either cannot be parsed."""
    try:
        return datetime.strptime(one, FORMAT) < datetime.strptime(other, FORMAT)
    except ValueError:
        return False
