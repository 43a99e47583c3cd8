"""The signals that ask a run to stop, held back from the moment it starts until something can heed them."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


def hold_back() -> None:
    """Let these signals wait from now on; `StopFlag` takes what has come meanwhile."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
