"""Handle signals that ask a run to stop: they only set a flag, which the loop tests between steps."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

from robustlab.core.stop_signals import STOP_SIGNALS, hold_back

_ONE_KEYSTROKE = 0.5
"""Seconds within which a second SIGINT is an echo: wrappers forward a signal that the terminal also sends directly."""


class StoppedEarly(BaseException):  # not an Exception, so that no error handler on the way swallows it
    """A signal arrived while there was nothing to save yet."""


class StopFlag:
    """Context manager that installs signal handlers and restores the old ones. `name`: the signal received, or None.

    Signals held back earlier (`hold_back`) are handled now. A second SIGINT (Ctrl-C twice) raises KeyboardInterrupt
    immediately, but only once; repeating other signals has no effect, since batch systems send several in a row. If a
    signal arrived, all are held back on leaving the context: the process is about to report that it was stopped and
    exit, and a late signal must not kill it first.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._interrupted_at: float | None = None
        self._at_once = False
        self._previous: dict[signal.Signals, object] = {}

    def __bool__(self) -> bool:
        """Whether a stop was requested."""
        return self.name is not None

    def __enter__(self) -> StopFlag:
        """Install the handlers."""
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        if self.name is not None:
            hold_back()
            signal.raise_signal(signal.Signals[self.name])  # pending until the next run, if there is one
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise StoppedEarly inside the block as soon as a signal arrives: preparing data may take long."""
        self._at_once = True
        try:
            if self:
                raise StoppedEarly
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_first, self.name = self.name is None, self.name or signal.Signals(number).name
        if self._at_once and is_first:
            raise StoppedEarly
        if number != signal.SIGINT or self._interrupted_at == float("inf"):
            return
        now = time.monotonic()
        if self._interrupted_at is None:
            self._interrupted_at = now
        elif now - self._interrupted_at > _ONE_KEYSTROKE:
            self._interrupted_at = float("inf")
            raise KeyboardInterrupt
