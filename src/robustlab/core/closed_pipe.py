"""What happens when the reader of the output, e.g. `head`, has seen enough."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

KILLED_BY_PIPE = 128 + signal.SIGPIPE
"""A shell's exit code for a program that wrote to a closed pipe."""


def without_traceback(action: Callable[[], int]) -> int:
    """Return what `action` returns; where it writes to a closed pipe, end it in silence and return KILLED_BY_PIPE."""
    try:
        code = action()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return KILLED_BY_PIPE
    return code
