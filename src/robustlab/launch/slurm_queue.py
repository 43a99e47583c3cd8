"""Query SLURM's queue. Without accounting (`sacct`), SLURM forgets a job minutes after its end."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.core.errors import ClusterError

WIDTHS = {"JobArrayID": 40, "StateCompact": 8, "RestartCnt": 12, "Reason": 60}


TIMEOUT = 60
"""Seconds to wait for an answer of SLURM's controller."""


@dataclass(frozen=True)
class QueuedJob:
    """One line of the queue. id: "12" or, for an element of an array, "12_3". state: SLURM's short form, "PD", "R"."""

    id: str
    state: str
    restarts: int
    reason: str

    @property
    def is_waiting(self) -> bool:
        """Whether it does not run now (pending, requeued, held)."""
        return self.state in ("PD", "RQ", "RH", "RD", "SE", "S", "ST")


def queue() -> dict[str, QueuedJob] | None:
    """Return id -> job for this user's jobs; None without SLURM. Raises ClusterError if it does not answer."""
    columns = ",".join(f"{name}:{width}" for name, width in WIDTHS.items())
    try:
        done = _call("squeue", "--noheader", "--array", "--user", getpass.getuser(), "--Format", columns)
    except FileNotFoundError:
        return None
    return {job.id: job for job in map(_parse, done.splitlines()) if job.id}


def _parse(line: str) -> QueuedJob:
    fields, start = [], 0
    for width in WIDTHS.values():
        fields.append(line[start : start + width].strip())
        start += width
    return QueuedJob(fields[0], fields[1], int(fields[2] or 0), fields[3])


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs. Raises ClusterError if SLURM refuses or is not there."""
    try:
        _call("scancel", *ids)
    except FileNotFoundError as error:
        raise ClusterError("scancel is not available here: cancel on a login node of the cluster") from error


def may_requeue() -> bool:
    """Return whether the current job may be requeued.

    False if SLURM is already ending the job: it was cancelled, must not be requeued, or is being requeued by SLURM.
    """
    job = os.environ["SLURM_JOB_ID"]
    shown = _call("scontrol", "show", "job", "--oneliner", job)
    return "JobState=RUNNING" in shown.split() or "Reason=TimeLimit" in shown.split()


def _call(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{command[0]} did not answer in {TIMEOUT} s; see scontrol ping") from error
    if done.returncode != 0:
        raise ClusterError(f"{command[0]}: {(done.stderr or done.stdout).strip() or f'exit code {done.returncode}'}")
    return done.stdout
