"""Print messages: results on standard output, notices and warnings on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from rich.console import Console

from robustlab.core.world import World


def make_console(stream: TextIO | None = None, *, width: int | None = None) -> Console:
    """Return a rich console on `stream` (default: the standard output of this moment).

    Without a terminal it writes plain text: no colours, no control characters, lines up to 120 characters wide.
    """
    file: TextIO = sys.stdout if stream is None else stream
    terminal = file.isatty()
    return Console(
        file=file,
        force_terminal=terminal,
        no_color=None if terminal else True,
        width=width if terminal else width or 120,
        soft_wrap=not terminal,
        highlight=False,
        emoji=False,
    )


_is_quiet: ContextVar[bool] = ContextVar("_is_quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress notices and warnings of trial runs, which repeat them when they really run."""
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def say(text: str, *, once: bool = False) -> None:
    """Print a notice on standard error immediately; with several processes, only the first one prints.

    - once: the notice is about work that is not repeated, so print it even if `quiet`.
    """
    if World.from_environment().is_main and (once or not _is_quiet.get()):
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print one warning line on standard error."""
    say(f"warning: {text}")


def percent(fraction: float, *, digits: int = 1) -> str:
    """Write a fraction as a percentage, e.g. 0.931 -> "93.1 %"."""
    return f"{100 * fraction:.{digits}f} %"


def duration(seconds: float) -> str:
    """Write seconds for people: "42 s", "3 min 05 s", "2 h 07 min", "3 d 04 h"."""
    total = round(max(seconds, 0.0))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    if total < 86400:
        return f"{total // 3600} h {total % 3600 // 60:02d} min"
    return f"{total // 86400} d {total % 86400 // 3600:02d} h"


def counted(number: int, noun: str) -> str:
    """Write a number of things: "1 run", "4,200 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
