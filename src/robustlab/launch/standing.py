"""Determine the status of a run from its folder, its sweep's record and SLURM's queue."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, get_args

from robustlab.core.errors import EXIT_PREEMPTED
from robustlab.core.invocation import same_command
from robustlab.core.timestamps import is_before
from robustlab.engine.ending import read_ending
from robustlab.engine.lock import ENDING_FILE, LOCK_FILE, OWNER_FILE, Holder, last_holder
from robustlab.launch.slurm_queue import QueuedJob, queue
from robustlab.launch.submission import Submission, SubmittedPoint, log_path, read_outcome, read_submissions
from robustlab.tracking.trackers import METRICS_FILE

State = Literal["done", "running", "queued", "requeued", "stopped", "unclear", "killed", "failed", "not started"]
STATES: tuple[State, ...] = get_args(State)
LOG_TAIL = 65536
_HOLDER = re.compile(r"process (\d+) on (\S+?)(?:, SLURM job (\d+))?")


@dataclass(frozen=True)
class Standing:
    """The state of a run, and what more is known: the job, the exit code, the last line of its log."""

    state: State
    note: str = ""
    job: str | None = None

    @property
    def words(self) -> str:
        """The state and the note as text."""
        return f"{self.state}, {self.note}" if self.note else self.state

    @property
    def is_open(self) -> bool:
        """Whether starting the run now would be wrong (it is running or waiting) or pointless (it is done)."""
        return self.state in ("done", "running", "queued", "requeued")


class Overview:
    """A snapshot of the sweeps below a folder of outputs and this user's jobs."""

    def __init__(self, outputs: Path) -> None:
        self.submissions = read_submissions(outputs)
        self.jobs: Mapping[str, QueuedJob] | None = queue()
        self.locks = _held_locks()
        self.latest: dict[str, tuple[Submission, SubmittedPoint]] = {}
        for sweep in self.submissions:  # the newest last: it counts
            self.latest |= {point.run_dir: (sweep, point) for point in sweep.points}

    def standing(self, run_dir: Path) -> Standing:
        """Return where the run of a folder stands; `run_dir` is absolute. The folder need not exist."""
        submitted = self.latest.get(str(run_dir))
        job = submitted and (self.jobs or {}).get(submitted[1].job)
        ended = finished_at(run_dir)
        if ended is not None and not (submitted and is_before(ended, submitted[0].submitted_at)):
            return Standing("done")
        if submitted and job:  # to extend a finished run, or to start it over
            return _in_queue(job, *submitted)
        if holder := self._holder(run_dir):
            return Standing("running", f"{holder}{_reached(run_dir)}")
        if submitted:
            return self._after_its_job(*submitted)
        return self._last_start(run_dir) if run_dir.is_dir() else Standing("not started")

    def _last_start(self, run_dir: Path) -> Standing:
        """Return how the last start of a run ended that nobody works on now, by what it left in the folder."""
        ending, reached = read_ending(run_dir), _reached(run_dir)
        if ending is not None:
            message = _what_happened(ending.message)
            if ending.exit_code == EXIT_PREEMPTED:
                return Standing("stopped", f"{message}{reached}; {_same_command(run_dir)} resumes it")
            return Standing("failed", f"exit code {ending.exit_code}: {message}")
        owner = _owner(run_dir)
        holder = str(owner) if owner is not None else last_holder(run_dir)
        if not holder:
            return Standing("stopped", f"no trace of how it ended{reached}")
        match = _HOLDER.fullmatch(holder)
        is_known = match is not None and (match[2] == socket.gethostname() or (match[3] and self.jobs is not None))
        if not is_known:
            return Standing("unclear", f"held by {holder}, not visible from here: running, or killed{reached}")
        stale = "; the next start takes over its stale lock" if (run_dir / OWNER_FILE).exists() else ""
        return Standing("killed", f"{holder} vanished without a message: killed, or lost power{stale}{reached}")

    def _after_its_job(self, sweep: Submission, point: SubmittedPoint) -> Standing:
        outcome, last = read_outcome(sweep.folder, point.number), last_line(log_path(sweep.folder, point.number))
        if outcome is None and self.jobs is None:
            return Standing("stopped", f"job {point.job}; there is no SLURM here to ask", point.job)
        if outcome is None:
            return Standing("failed", f"job {point.job} ended without a message: {last or 'no output'}", point.job)
        code, ending = outcome["exit_code"], read_ending(Path(point.run_dir))
        if code == 0 and is_done(Path(point.run_dir)):
            return Standing("done")
        if ending is not None and ending.exit_code == code and not is_before(ending.ended_at, sweep.submitted_at):
            last = _what_happened(ending.message)
        if code == EXIT_PREEMPTED:
            return Standing("stopped", f"job {point.job} was not requeued", point.job)
        return Standing("failed", f"exit code {code}: {last}", point.job)

    def _holder(self, run_dir: Path) -> str | None:
        """Return who holds the lock of a run folder, as far as that shows on this machine or in SLURM's queue."""
        path, owner = run_dir / LOCK_FILE, _owner(run_dir)
        if owner is not None and owner.host == socket.gethostname():
            return None if owner.is_gone() else str(owner)
        try:
            text, inode = path.read_text(encoding="utf-8").strip(), path.stat().st_ino
        except OSError:
            return None
        found = _HOLDER.fullmatch(text)
        if found is None:
            return None
        if found[2] == socket.gethostname():
            return text if (int(found[1]), inode) in self.locks else None
        running = any(job.state == "R" and job.id == found[3] for job in (self.jobs or {}).values())
        return text if found[3] and running else None


def _owner(run_dir: Path) -> Holder | None:
    """Return who holds a lock that is a file, on file systems without locks of the kernel's."""
    try:
        return Holder(**json.loads((run_dir / OWNER_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _reached(run_dir: Path) -> str:
    """Return how far a run's metrics go, e.g. ", at epoch 3, step 120"; "" without metrics."""
    try:
        row: Any = json.loads(last_line(run_dir / METRICS_FILE))
        return f", at epoch {int(row['epoch']) + 1}, step {int(row['step'])}"
    except (ValueError, TypeError, KeyError):
        return ""


def _same_command(run_dir: Path) -> str:
    """Return how to call the command that a run was started with last."""
    try:
        overrides = (run_dir / "overrides.yaml").read_text(encoding="utf-8").splitlines()
    except OSError:
        overrides = []
    return same_command("- resume=false" not in overrides)


def _what_happened(message: str) -> str:
    """Return the first sentence of an error: what to do about it was said when it happened."""
    return shorten(message.strip().partition("\n")[0].partition(". ")[0], 200, placeholder=" ...")


def is_done(run_dir: Path) -> bool:
    """Return whether a run folder holds the results of a finished run."""
    return finished_at(run_dir) is not None


def finished_at(run_dir: Path) -> str | None:
    """Return when the results in a run folder were written, "" where they do not say; None without results."""
    try:
        results = json.loads((run_dir / "results.json").read_bytes())
        return str(results.get("finished_at", "")) if results.get("finished") is True else None
    except (OSError, ValueError, AttributeError):
        return None


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty; "" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _in_queue(job: QueuedJob, sweep: Submission, point: SubmittedPoint) -> Standing:
    if not job.is_waiting:
        last = last_line(log_path(sweep.folder, point.number))
        return Standing("running", f"job {point.job}" + (f": {last}" if last else ""), point.job)
    reason = f": {job.reason}" if job.reason not in ("", "None") else ""
    if job.restarts:
        return Standing("requeued", f"job {point.job}, restart {job.restarts}{reason}", point.job)
    return Standing("queued", f"job {point.job}{reason}", point.job)


def _held_locks() -> set[tuple[int, int]]:
    """Return (process, inode) of every lock held on this machine. Asking a lock itself could get in a run's way."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return set()
    fields = (line.split() for line in lines)
    return {(int(field[4]), int(field[5].rpartition(":")[2])) for field in fields if field[1] == "FLOCK"}


def runs_below(outputs: Path) -> list[Path]:
    """Return the run folders below a folder of outputs: `<name>/seed<k>`, and others named by `paths.run_dir`."""
    found = []
    for folder, folders, files in os.walk(outputs):
        folders[:] = sorted(name for name in folders if not _NO_RUN.fullmatch(name))
        if {"config.yaml", "results.json", ENDING_FILE, LOCK_FILE} & set(files):
            found.append(Path(folder))
            folders.clear()
    return found


_NO_RUN = re.compile(r"sweeps|checkpoints|.*\.old\d+")


def counts(standings: Mapping[Path, Standing]) -> dict[State, int]:
    """Return how many runs are in each state that occurs."""
    states = [standing.state for standing in standings.values()]
    return {state: states.count(state) for state in STATES if state in states}
