"""Times as records and results have them: one format, written and read here."""

from __future__ import annotations

import time
from datetime import datetime

FORMAT = "%Y-%m-%dT%H:%M:%S%z"


def timestamp() -> str:
    """Return the time of this moment, local, with its distance from UTC."""
    return time.strftime(FORMAT)


def is_before(one: str, other: str) -> bool:
    """Tell whether one time lies before another; False where one of them cannot be read."""
    try:
        return datetime.strptime(one, FORMAT) < datetime.strptime(other, FORMAT)
    except ValueError:
        return False
