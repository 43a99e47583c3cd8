"""Helpers for tests that need a GPU."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator

import torch

PROTOTYPE = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
"""What torch warns of once in a process when its detector is switched on or off."""


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Let torch raise an error where the host waits for the GPU."""
    _set_mode("error")
    try:
        yield
    finally:
        _set_mode("default")


def _set_mode(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", re.escape(PROTOTYPE), UserWarning)
        torch.cuda.set_sync_debug_mode(mode)
