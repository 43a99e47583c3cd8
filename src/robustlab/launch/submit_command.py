"""Implement `robustlab submit` and `robustlab status --resubmit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustlab.config.default_experiment import with_default_experiment
from robustlab.core.console import make_console, say
from robustlab.launch.job_array import plan_sweep, submit
from robustlab.launch.submission_plan import print_plan
from robustlab.sweeps.points import read_sweep

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

    from robustlab.launch.submission import Submission


def submit_command(
    hydra: Hydra,
    overrides: Sequence[str],
    *,
    points: Sequence[Sequence[str]] | None = None,
    dry_run: bool = False,
) -> Submission | None:
    """Plan a sweep, print the plan, and submit it; `hydra/launcher=slurm` where no launcher is named.

    points: the overrides of each run, where the sweep is expanded already. Returns None where nothing was submitted.
    Raises ConfigError, ClusterError, and Hydra's exceptions as ConfigError.
    """
    from hydra.errors import HydraException

    from robustlab.config.check import refuse
    from robustlab.config.explain import explain

    overrides = list(overrides) if points is not None else with_default_experiment(overrides)
    launcher = [] if any(text.startswith("hydra/launcher=") for text in overrides) else ["hydra/launcher=slurm"]
    try:
        sweep = read_sweep(hydra, [*launcher, *overrides], points=points)
    except HydraException as error:
        refuse(explain(hydra, overrides, error, sweep=True))
        raise
    plan = plan_sweep(hydra, sweep)
    print_plan(plan, make_console())
    if dry_run or not plan.jobs:
        return None
    submission = submit(plan)
    first = submission.points[0].job.partition("_")[0]
    say(f"submitted as SLURM job {first}, {submission.folder}; follow it with: {submission.status_line}")
    return submission
