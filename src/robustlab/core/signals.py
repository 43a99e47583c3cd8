"""Signals that ask a run to stop: they only set a flag, which the loop tests between steps."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

from robustlab.core.stop_signals import STOP_SIGNALS, hold_back

_ONE_KEYSTROKE = 0.5
"""Seconds within which a SIGINT after another is an echo: wrappers of a command pass on what the terminal sent, too."""


class StoppedEarly(BaseException):  # no Exception: what is half done is given up, whatever handles errors on the way
    """A signal came while there was nothing yet to save."""


class StopFlag:
    """Context manager that installs the handlers and restores the old ones. `name` is the signal received, or None.

    Signals that were held back before (`hold_back`) are taken now. A second SIGINT (Ctrl-C twice) raises
    KeyboardInterrupt at once, and once; repeated others change nothing, since batch systems send several in a row.
    After a signal, all are held back when the context is left: the process is about to say that it was stopped and
    exit, which a straggler must not turn into death by signal.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._interrupted_at: float | None = None
        self._at_once = False
        self._previous: dict[signal.Signals, object] = {}

    def __bool__(self) -> bool:
        """Whether a stop was asked for."""
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
            signal.raise_signal(signal.Signals[self.name])  # waits for the next flag, where another run would follow
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise StoppedEarly in the block as soon as there is a signal: preparing data may take long."""
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
