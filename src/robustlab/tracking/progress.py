"""Progress of a run: a bar on a terminal, plain lines in a log file, nothing on ranks other than 0."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from robustlab.core.console import duration, make_console, percent
from robustlab.core.errors import ConfigError

MODES = ("auto", "bar", "lines", "off")
BAR_SECONDS = 0.25
"""Minimum time between redraws of the bar."""
LONG_EPOCH_LINES = 6
"""In a long epoch there is a line only every so many `every_seconds`."""


class Progress:
    """Shows where a run stands. Use it as a context manager around the training loop.

    `step` costs well under a microsecond unless it is time to draw, so it may be called after every training step.
    It never reads a device tensor: the loss shown is the last one given to `metrics`.

    Args:
        cfg: the node `tracker.progress`: `mode` ("bar"; "lines", without control characters; "off"; "auto": a bar on
            a terminal, else lines) and `every_seconds`, the least time between two lines (the first and the last
            epoch always have one).
        total_epochs: epochs of the whole run, all stages together.
        stages: epochs of each stage by name, in order; needed only to resume in a later stage with a right bar.
        is_main: False on all ranks but 0: nothing is shown.
        console: where to draw; default the standard output.
        clock: monotonic seconds.

    Raises:
        ConfigError: `mode` is none of the four.
    """

    def __init__(
        self,
        cfg: Mapping[str, Any] | None = None,
        *,
        total_epochs: int,
        stages: Mapping[str, int] | None = None,
        is_main: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        cfg = cfg or {}
        mode = str(cfg.get("mode", "auto"))
        if mode not in MODES:
            raise ConfigError(f"tracker.progress.mode={mode} is not known; choose one of {', '.join(MODES)}")
        self._console = console or make_console()
        if mode == "auto":
            mode = "bar" if self._console.is_terminal else "lines"
        self.mode = mode if is_main else "off"
        self._every = float(cfg.get("every_seconds", 10.0))
        self._total_epochs = max(total_epochs, 1)
        self._clock = clock
        self._next_draw = float("inf") if self.mode == "off" else 0.0
        self._quiet_since: float | None = None  # clock at the last line, or at the first step
        self._shown: dict[str, float] = {}
        self._counter = EpochCounter(stages or {})
        self._speed: tuple[float, int] | None = None  # clock and samples at the last draw
        self._bar: RichProgress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Progress:
        """Show the bar, if there is one."""
        if self.mode == "bar":
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[status]}"),
                console=self._console, auto_refresh=False, transient=True, expand=True,
            )  # fmt: skip
            self._task = self._bar.add_task("starting", total=float(self._total_epochs), status="")
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(
        self,
        stage: str,
        epoch: int,
        step: int,
        steps: int,
        scalars: Mapping[str, Any] | None = None,
        *,
        samples: int | None = None,
    ) -> None:
        """Say that `step` of the `steps` of an epoch are done.

        `epoch` counts from zero in its stage. `scalars` is not read (it may wait for the device). `samples` is the
        number of samples the run has seen; with it, samples per second are shown within the first epoch too.
        """
        now = self._clock()
        if now < self._next_draw:
            return
        self._counter.enter(stage, epoch, now, step / max(steps, 1))
        if samples is not None:
            if self._speed is not None and now > self._speed[0]:
                self._shown["time/samples_per_second"] = (samples - self._speed[1]) / (now - self._speed[0])
            self._speed = (now, samples)
        fraction = step / max(steps, 1)
        if self._bar is not None:
            self._next_draw = now + BAR_SECONDS
            self._draw(stage, fraction, f"step {step}/{steps}", now)
            return
        self._next_draw = now + min(1.0, self._every)
        if self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= self._every * LONG_EPOCH_LINES:
            self._line(now, stage, fraction, [f"step {step}/{steps}"])

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Take numbers that have been read from the device anyway; "train/loss" is shown."""
        self._shown.update({name: float(values[name]) for name in SHOWN if name in values})

    def epoch(self, stage: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Say that an epoch is over; the losses, the accuracies and the speed among `metrics` are shown."""
        if self.mode == "off":
            return
        now = self._clock()
        first = self._counter.finished == 0
        self._counter.enter(stage, epoch, now, 0.0)
        self.metrics(metrics)
        self._counter.finish(now)
        last = self._counter.overall + 1 >= self._total_epochs
        if self._bar is not None:
            self._draw(stage, 1.0, "", now)
        elif first or last or self._quiet_since is None or now - self._quiet_since >= self._every:
            self._line(now, stage, 1.0, [])

    def _draw(self, stage: str, fraction: float, step: str, now: float) -> None:
        assert self._bar is not None
        parts = [step] if step else []
        self._bar.update(
            self._task,
            completed=self._counter.overall + fraction,
            description=escape(self._head(stage)),
            status=escape("  ".join([*parts, *self._status(fraction, now)])),
        )
        self._bar.refresh()

    def _line(self, now: float, stage: str, fraction: float, parts: list[str]) -> None:
        self._quiet_since = now
        text = "  ".join([self._head(stage), *parts, *self._status(fraction, now)])
        self._console.print(text, markup=False)

    def _head(self, stage: str) -> str:
        return f"{stage} epoch {self._counter.overall + 1}/{self._total_epochs}"

    def _status(self, fraction: float, now: float) -> list[str]:
        parts = [show(self._shown[name]) for name, show in SHOWN.items() if name in self._shown]
        seconds = self._counter.seconds_per_epoch(fraction, now)
        left = self._total_epochs - self._counter.overall - fraction
        if seconds is not None and left > 0:
            parts.append(f"ETA {duration(seconds * left)}")
        return parts


SHOWN: dict[str, Callable[[float], str]] = {
    "train/loss": lambda value: f"loss {value:.3f}",
    "val/accuracy": lambda value: f"val {percent(value)}",
    "test/accuracy": lambda value: f"test {percent(value)}",
    "test/worst_group": lambda value: f"worst group {percent(value)}",
    "time/samples_per_second": lambda value: f"{value:,.0f} images/s",
}
"""What is shown of a run's metrics, in this order."""


class EpochCounter:
    """Which epoch of the whole run an epoch of a stage is, and how long epochs take."""

    def __init__(self, stages: Mapping[str, int]):
        self._offsets: dict[str, int] = {}
        total = 0
        for name, epochs in stages.items():
            self._offsets[name] = total
            total += epochs
        self.overall = 0
        self.finished = 0
        self._current: tuple[str, int] | None = None
        self._started = (0.0, 0.0)  # clock and share of the current epoch done when it was first seen
        self._last: float | None = None
        self._ended: float | None = None

    def enter(self, stage: str, epoch: int, now: float, fraction: float) -> None:
        """Note that `epoch` of `stage` runs and this share of it is done; nothing happens if the epoch is known."""
        if self._current == (stage, epoch):
            return
        if stage not in self._offsets:
            self._offsets[stage] = 0 if self._current is None else self.overall + 1
        self._current = (stage, epoch)
        self.overall = self._offsets[stage] + epoch
        # An epoch is timed from the end of the one before, so that data preparation and evaluation count.
        self._started = (now, fraction) if self._ended is None else (self._ended, 0.0)

    def finish(self, now: float) -> None:
        """Note that the current epoch is over."""
        self.finished += 1
        started, fraction = self._started
        if fraction < 0.5:  # of less, as after a resume, the evaluation would be most
            self._last = (now - started) / (1 - fraction)
        self._ended = now

    def seconds_per_epoch(self, fraction: float, now: float) -> float | None:
        """From the epoch that runs, once a fifth of it is done, else the last whole one; None if none is known."""
        started, before = self._started
        if before < fraction < 1 and (self._last is None or fraction - before >= 0.2):
            return (now - started) / (fraction - before)
        return self._last or None
