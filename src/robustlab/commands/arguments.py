"""Types of command-line arguments; argparse reports refused values with exit code 2."""

from __future__ import annotations

import argparse
import os


def count(text: str) -> int:
    """Parse a positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


def threads(text: str) -> int:
    """Return a number of threads, at most one per core: torch crashes where it cannot start them all."""
    number, cores = count(text), os.cpu_count() or 1
    if number > cores:
        raise argparse.ArgumentTypeError(f"{number} threads, but this machine has {cores} cores")
    return number
