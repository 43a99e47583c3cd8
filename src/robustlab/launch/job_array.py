"""Submission of a planned sweep as one job array, and waiting for its end."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlab.config.compose import command_line_dirs
from robustlab.core.errors import ClusterError, ConfigError
from robustlab.core.timestamps import timestamp
from robustlab.launch.job import Pack
from robustlab.launch.slurm_settings import need_slurm, slurm_settings, submitit_parameters
from robustlab.launch.snapshot import snapshot
from robustlab.launch.submission import Submission, SubmittedPoint
from robustlab.launch.submission_plan import Plan, absolute, make_plan
from robustlab.sweeps.points import Point, Sweep, check_ahead

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

OF_THE_SWEEP = ("hydra/launcher=", "hydra.launcher.", "hydra/sweeper=", "hydra.sweeper.", "hydra.sweep.", "hydra.mode=")
"""Overrides that concern the sweep, not its runs."""


def plan_sweep(hydra: Hydra, sweep: Sweep) -> Plan:
    """Plan a checked sweep whose launcher is SLURM's.

    Raises ConfigError where its launcher's settings are wrong, or a point could not start.
    """
    if sweep.points is None:
        raise ConfigError("hydra/sweeper: on SLURM the points must be known when a sweep is submitted; leave it out")
    check_ahead(sweep.points, read_data=False)
    return make_plan(
        sweep.points,
        folder=Path(str(sweep.master.hydra.sweep.dir)).expanduser(),
        settings={"pack": 1, **slurm_settings(sweep.master.hydra.launcher)},
        hydra_overrides=sweep.hydra_overrides,
        config_dirs=command_line_dirs(hydra),
    )


def submit(plan: Plan) -> Submission:
    """Snapshot the code and submit the plan's jobs. Raises ClusterError if SLURM is not there or refuses."""
    need_slurm()
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    folder = _new_folder(plan.folder)
    (folder / "points").mkdir()
    targets = {target for point in plan.points for target in _targets(point.settings)}
    config_dirs = snapshot(folder / "code", targets=targets, config_dirs=plan.config_dirs)
    setup = [*(plan.settings.get("setup") or []), *_setup(folder / "code", plan.settings)]
    packed = [Pack(folder, [(n, _arguments(plan, plan.points[n], config_dirs)) for n in one]) for one in plan.jobs]
    try:
        executor = submitit.AutoExecutor(
            folder=plan.settings.get("submitit_folder") or folder / "jobs",
            cluster="slurm",
            slurm_max_num_timeout=plan.settings["max_num_timeout"],
            slurm_python=f"{shlex.quote(sys.executable)} -P",
        )
        executor.update_parameters(**submitit_parameters({**plan.settings, "setup": setup}))
        with executor.batch():
            jobs = [executor.submit(one) for one in packed]
    except (FailedJobError, FailedSubmissionError) as error:
        shutil.rmtree(folder)
        raise ClusterError(f"SLURM refused the jobs: {_reason(error)}; change hydra.launcher.*") from error
    points = [
        SubmittedPoint(number, plan.points[number].overrides, str(absolute(plan.points[number])), job.job_id)
        for numbers, job in zip(plan.jobs, jobs, strict=True)
        for number in numbers
    ]
    submission = Submission(
        folder=folder,
        submitted_at=timestamp(),
        cwd=str(Path.cwd()),
        hydra_overrides=list(plan.hydra_overrides),
        config_dirs=list(plan.config_dirs),
        points=points,
    )
    submission.write()
    return submission


def _new_folder(folder: Path) -> Path:
    """Create the sweep's folder; one that another sweep has made in the same second is left to it."""
    for number in range(1, 1000):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            place.mkdir(parents=True)
        except FileExistsError:
            continue
        return place
    raise ConfigError(f"{folder} and 999 more of that name exist; choose another hydra.sweep.dir")


def _setup(code: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the lines of shell before the job: the snapshot comes first, and srun takes all CPUs of the job."""
    lines = [f"export PYTHONPATH={shlex.quote(str(code / 'src'))}${{PYTHONPATH:+:$PYTHONPATH}}"]
    if settings.get("cpus_per_task"):
        lines.append(f"export SRUN_CPUS_PER_TASK={settings['cpus_per_task']}")
    return lines


def _arguments(plan: Plan, point: Point, config_dirs: Sequence[str]) -> list[str]:
    """Return what `train` is given in the job: the point alone, without the run that `compare` shows beside it."""
    flags = [word for folder in config_dirs for word in ("--config-dir", folder)]
    own = [text for text in plan.hydra_overrides if not text.lstrip("+~").startswith(OF_THE_SWEEP)]
    compare = [] if any(text.lstrip("+~").startswith("compare=") for text in point.overrides) else ["compare=null"]
    return [*flags, *own, "hydra.mode=RUN", *point.overrides, *compare]


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("_target_"), str):
            yield value["_target_"]
        for item in value.values():
            yield from _targets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _targets(item)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "sbatch: error" in line or "error:" in line]
    return " ".join(lines) or str(error).strip()
