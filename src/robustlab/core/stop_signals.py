"""Hold back the signals that ask a run to stop, from its start until it can handle them."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


def hold_back() -> None:
    """Block these signals from now on; `StopFlag` later handles any that arrived in the meantime."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
