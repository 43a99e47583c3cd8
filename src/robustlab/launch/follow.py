"""`train -m ... hydra/launcher=slurm`: submit a sweep and follow it to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.core.console import make_console, say
from robustlab.core.errors import EXIT_PREEMPTED
from robustlab.launch.job_array import plan_sweep, submit
from robustlab.launch.standing import Overview, Standing
from robustlab.launch.submission import Submission, SubmittedPoint, read_outcome
from robustlab.launch.submission_plan import absolute, print_plan
from robustlab.report.sweep_table import end_with_table
from robustlab.sweeps.points import Sweep

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

POLL_SECONDS = 5.0


def submit_and_wait(hydra: Hydra, sweep: Sweep) -> int:
    """Submit what is left of a sweep, print each run's end, and return the largest exit code.

    After Ctrl-C the jobs continue without this process, and the exit code is that of a resumable run.
    """
    plan = plan_sweep(hydra, sweep)
    print_plan(plan, make_console())
    if not plan.jobs:
        return 0
    submission = submit(plan)
    status = submission.status_line
    say(f"submitted to SLURM, {submission.folder}; Ctrl-C stops waiting, `{status} --cancel` cancels the jobs")
    codes = [0]
    try:
        for point, standing in ended(submission):
            codes.append(_exit_code(submission, point, standing))
            done = f"[{len(codes) - 1}/{len(submission.points)}]"
            print(f"{done} {submission.label(point)}: {standing.words}", flush=True)
    except KeyboardInterrupt:
        say(f"the jobs continue; see: {status}")
        return EXIT_PREEMPTED
    end_with_table(absolute(point) for point in plan.points)
    return max(codes)


def ended(submission: Submission) -> Iterator[tuple[SubmittedPoint, Standing]]:
    """Yield each point when its run has ended and its job is not waiting to restart."""
    left = list(submission.points)
    while left:
        time.sleep(POLL_SECONDS)
        overview = Overview(submission.outputs)
        for point in list(left):
            standing = overview.standing(Path(point.run_dir))
            if standing.state not in ("running", "queued", "requeued"):
                left.remove(point)
                yield point, standing


def _exit_code(submission: Submission, point: SubmittedPoint, standing: Standing) -> int:
    if standing.state == "done":
        return 0
    outcome = read_outcome(submission.folder, point.number)
    return int(outcome["exit_code"]) if outcome else 1
