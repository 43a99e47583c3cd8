"""Collect the outcomes of a sweep's points, for any sweeper, launcher and process."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf.errors import OmegaConfBaseException

from robustlab.config.metric import Metric
from robustlab.core.errors import EXIT_PREEMPTED, ResourceError, UserError


@dataclass(frozen=True)
class PointOutcome:
    """How a point ended; sent from the process that ran it to the one that started the sweep.

    - message: text for standard error.
    - value: value of the metric to optimize, None if there is none.
    """

    code: int
    run_dir: str = ""
    seconds: float = 0.0
    was_finished: bool = False
    message: str = ""
    value: float | None = None

    @property
    def words(self) -> str:
        """A readable description of how the point ended."""
        if self.code == 0:
            return "finished before" if self.was_finished else "finished"
        return "stopped, resumable" if self.code == EXIT_PREEMPTED else f"failed (exit code {self.code})"


class PointFailedError(Exception):
    """Tells a sweeper that a point has no value."""


class SweepStoppedError(Exception):
    """Ends a search whose trial was stopped by a signal."""


class Tally:
    """The outcomes of a sweep's points, printed as they arrive. `metric`: None if the sweeper does not use one."""

    def __init__(self, total: int | None = None, common: Collection[str] = (), metric: Metric | None = None) -> None:
        """Start an empty tally.

        - total: number of points, None if a search chooses them.
        - common: overrides that all points share.
        """
        self.total, self.common, self.metric = total, common, metric
        self.outcomes: dict[int, PointOutcome] = {}
        self.labels: dict[int, str] = {}

    @property
    def code(self) -> int:
        """The largest exit code."""
        return max((outcome.code for outcome in self.outcomes.values()), default=0)

    @property
    def failed(self) -> list[int]:
        """The numbers of the points that failed, not counting those stopped by a signal."""
        return [number for number, one in sorted(self.outcomes.items()) if one.code not in (0, EXIT_PREEMPTED)]

    def label(self, number: int, overrides: Sequence[str]) -> str:
        """Return a point's number, counted from 1, and the overrides that distinguish it."""
        return f"[{number + 1}/{self.total or '?'}] {' '.join(text for text in overrides if text not in self.common)}"

    def add(self, number: int, overrides: Sequence[str], outcome: PointOutcome) -> None:
        """Record the outcome of a point and print it."""
        self.outcomes[number], self.labels[number] = outcome, self.label(number, overrides)
        if outcome.message:
            print(outcome.message, file=sys.stderr, flush=True)
        measured = "" if outcome.value is None or self.metric is None else f", {self.metric.name} {outcome.value:.6g}"
        time = f" in {outcome.seconds:.0f} s, {outcome.run_dir}" if outcome.run_dir else ""
        print(f"{self.labels[number]}: {outcome.words}{measured}{time}", flush=True)

    def skip(self, number: int, overrides: Sequence[str]) -> None:
        """Record a point that was not started because the sweep was stopped."""
        self.outcomes[number] = PointOutcome(EXIT_PREEMPTED)
        print(f"{self.label(number, overrides)}: not started, the sweep was stopped", flush=True)

    def conclude(self) -> int:
        """Print which points failed and which trial was best; return the exit code of the sweep."""
        failed = self.failed
        if failed:
            rows = [f"{self.labels[number]}: exit code {self.outcomes[number].code}" for number in failed]
            of = f"{len(failed)} of {self.total or len(self.outcomes)} points failed"
            print("\n  - ".join([f"train: {of}:", *rows]), file=sys.stderr, flush=True)
        best = self._best()
        if best is not None and self.metric is not None:
            label, value, folder = self.labels[best], self.outcomes[best].value, self.outcomes[best].run_dir
            print(f"best {self.metric.name} ({self.metric.mode}): {value:.6g}, {label}, {folder}", flush=True)
        return self.code

    def _best(self) -> int | None:
        best, metric = None, self.metric
        for number, outcome in sorted(self.outcomes.items()):
            if metric is None or outcome.value is None:
                continue
            so_far = None if best is None else self.outcomes[best].value
            if so_far is None or metric.better(outcome.value, so_far):
                best = number
        return best


class WatchedLauncher(Launcher):
    """Passes jobs on to another launcher and their outcomes to a tally; sweepers get the value they ask for."""

    def __init__(self, launcher: Launcher, tally: Tally) -> None:
        """Wrap `launcher`, which is already set up."""
        self.launcher, self.tally = launcher, tally

    def setup(self, **_: Any) -> None:
        """Do nothing: the other launcher is set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs; a job that failed has no value. Raises ResourceError where the launcher itself fails."""
        try:
            jobs = self.launcher.launch(job_overrides, initial_job_idx)
        except (UserError, SweepStoppedError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise ResourceError(self._broken(error, len(job_overrides))) from error
        numbered = enumerate(zip(jobs, job_overrides, strict=True), initial_job_idx)
        seen = [self._seen(number, list(overrides), job) for number, (job, overrides) in numbered]
        if self.tally.metric is not None and self.tally.code == EXIT_PREEMPTED:
            raise SweepStoppedError
        return seen

    def _seen(self, number: int, overrides: list[str], job: JobReturn) -> JobReturn:
        if number not in self.tally.outcomes:  # it ran in another process
            self.tally.add(number, overrides, outcome_of(job))
        outcome = self.tally.outcomes[number]
        if self.tally.metric is None:
            return dataclasses.replace(job, status=JobStatus.COMPLETED, _return_value=outcome.code)
        if outcome.code == 0 and outcome.value is not None and math.isfinite(outcome.value):
            return dataclasses.replace(job, status=JobStatus.COMPLETED, _return_value=outcome.value)
        return _WithoutValue(job.overrides, job.cfg, job.hydra_cfg, job.working_dir, job.task_name, JobStatus.FAILED)

    def _broken(self, error: Exception, count: int) -> str:
        said = (str(error) or "no message").strip().splitlines()[-1]
        return (
            f"the launcher failed while running {count} point(s): {type(error).__name__}: {said}. A job may have been "
            "killed, for instance because it ran out of memory; repeat the command to continue with unfinished points"
        )


class _WithoutValue(JobReturn):
    """A failed job; unlike Hydra's, it does not print a line each time a sweeper asks for its value."""

    @property
    def return_value(self) -> Any:
        raise PointFailedError(f"{' '.join(self.overrides or ())} failed")

    @return_value.setter
    def return_value(self, value: Any) -> None:
        raise AttributeError("a failed job has no value")


@contextmanager
def watched_launchers(tally: Tally) -> Iterator[None]:
    """Wrap the launcher that a sweeper makes for itself in a `WatchedLauncher`."""
    from hydra.core.plugins import Plugins

    plugins = Plugins.instance()

    def watched(**settings: Any) -> Launcher:
        return WatchedLauncher(Plugins.instantiate_launcher(plugins, **settings), tally)

    plugins.instantiate_launcher = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        del plugins.instantiate_launcher


def outcome_of(job: JobReturn) -> PointOutcome:
    """Return the outcome of a job that ran in another process, or that failed before the point itself began."""
    value = job._return_value
    if job.status == JobStatus.COMPLETED and isinstance(value, PointOutcome):
        return value
    if isinstance(value, UserError):
        return PointOutcome(value.exit_code, message=f"train: {value}")
    said = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else f"it returned {value!r}"
    return PointOutcome(1, message=f"train: a job failed outside the run itself: {said}")
