"""Manage worker processes: they ignore signals meant for the main process, but never outlive it."""

from __future__ import annotations

import atexit
import signal
import threading
import warnings
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}

_live: set[BaseProcess] = set()


@atexit.register
def _kill_live() -> None:
    """Kill remaining workers at exit, where multiprocessing would wait forever for processes that ignore SIGTERM."""
    for worker in _live:
        worker.kill()


def ignore_signals(worker: int) -> None:
    """Set up a worker process (`worker_init_fn`) to ignore all signals that the main process handles."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def start(loader: DataLoader) -> Any:
    """Return the loader's iterator. Workers are forked with signals blocked, so that none arrives too early.

    torch's SIGCHLD handler, which raises wherever the main process happens to be (say, while writing a checkpoint), is
    removed again: the reader of the iterator monitors the workers instead.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_child = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
            iterator = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread and on_child is not None:
            signal.signal(signal.SIGCHLD, on_child)
    _live.update(iterator._workers)  # type: ignore[attr-defined]
    return iterator


def forget(iterator: Any) -> None:
    """Leave the workers of an iterator to its own shutdown."""
    _live.difference_update(iterator._workers)
