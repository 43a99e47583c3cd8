"""Run one job of a sweep: start its runs in parallel, forward signals, and requeue the job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.core.errors import EXIT_PREEMPTED
from robustlab.core.files import write_json
from robustlab.core.invocation import SWEEP_VARIABLE
from robustlab.core.signals import StopFlag
from robustlab.core.stop_signals import STOP_SIGNALS
from robustlab.core.timestamps import timestamp
from robustlab.launch.slurm_queue import may_requeue
from robustlab.launch.submission import log_path, outcome_path, read_outcome

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Pack:
    """The runs of one job. submitit calls it in the job, and again after each requeue.

    sweep: the sweep's folder. commands: for each point its number and the arguments of `train`.
    """

    sweep: Path
    commands: Sequence[tuple[int, Sequence[str]]]

    def __call__(self) -> None:
        """Run everything that has not ended yet, then exit with the largest exit code, or requeue the job."""
        with StopFlag() as stop:
            children = {
                number: self._start(number, arguments, place)
                for place, (number, arguments) in enumerate(self.commands)
                if not self._has_ended(number)
            }
            codes = _wait(children, stop)
        for number, code in codes.items():
            self._write_outcome(number, code)
        if EXIT_PREEMPTED in codes.values() and may_requeue():
            import submitit

            number = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
            handler = signal.getsignal(number)
            assert callable(handler)
            handler(number, None)  # submitit's: it counts time-outs, requeues this element of the array, and exits
        if any(codes.values()):
            sys.exit(max(codes.values()))

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit calls after a requeue: the same, since the runs themselves know where they were."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _has_ended(self, number: int) -> bool:
        outcome = read_outcome(self.sweep, number)
        return outcome is not None and outcome["exit_code"] != EXIT_PREEMPTED

    def _start(self, number: int, arguments: Sequence[str], place: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "robustlab.train", *arguments]  # -P: the snapshot before what lies here
        with open(log_path(self.sweep, number), "a", encoding="utf-8") as log:
            log.write(f"--- job {_job_id()}, restart {_restarts()}, {socket.gethostname()}\n")
            log.flush()
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment(place)
            )

    def _environment(self, place: int) -> dict[str, str]:
        """Return the environment of a run: its share of the job's CPUs, and one GPU if there are several runs."""
        environment = {**os.environ, SWEEP_VARIABLE: self.sweep.name}
        if len(self.commands) > 1:
            cpus = int(environment.get("SLURM_CPUS_PER_TASK", len(os.sched_getaffinity(0))))
            environment["SLURM_CPUS_PER_TASK"] = str(max(1, cpus // len(self.commands)))
            gpus = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
            environment["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
        return environment

    def _write_outcome(self, number: int, code: int) -> None:
        outcome = {
            "exit_code": code,
            "job": _job_id(),
            "restarts": _restarts(),
            "node": socket.gethostname(),
            "ended_at": timestamp(),
        }
        write_json(outcome_path(self.sweep, number), outcome)


def _wait(children: dict[int, subprocess.Popen[bytes]], stop: StopFlag) -> dict[int, int]:
    """Wait for all runs, forwarding signals. Return their exit codes, with 85 for runs killed by a stop signal."""
    passed_on = False
    while any(child.poll() is None for child in children.values()):
        if stop and not passed_on:
            passed_on = True
            for child in children.values():
                child.send_signal(signal.Signals[str(stop.name)])
        time.sleep(POLL_SECONDS)
    return {number: _exit_code(child.returncode) for number, child in children.items()}


def _exit_code(code: int) -> int:
    """Return a shell's exit code; a run killed by a stop signal before it could catch it counts as resumable."""
    if code < 0 and -code in STOP_SIGNALS:
        return EXIT_PREEMPTED
    return 128 - code if code < 0 else code


def _job_id() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def _restarts() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))
