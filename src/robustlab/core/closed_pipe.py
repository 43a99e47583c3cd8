"""A reader of the output, e.g. `head`, that has seen enough ends the program quietly."""

from __future__ import annotations

import os
import signal
import sys
from types import TracebackType

KILLED_BY_PIPE = 128 + signal.SIGPIPE
"""A shell's exit code for a program that wrote to a closed pipe."""


class QuietlyClosed:
    """Holds the exit code of what is done inside: `code`, or KILLED_BY_PIPE after a write to a closed pipe.

    with QuietlyClosed() as ending:
        ending.code = work()
    return ending.code
    """

    code = 0

    def __enter__(self) -> QuietlyClosed:
        """Return itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Flush the output; swallow what a closed pipe raises."""
        try:
            if error is None:
                sys.stdout.flush()
        except BrokenPipeError as closed:
            error = closed
        if not isinstance(error, BrokenPipeError):
            return False
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        self.code = KILLED_BY_PIPE
        return True
