"""Plan the jobs of a sweep: points that are not done, running or queued, in jobs of `pack` runs each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from robustlab.core.console import counted
from robustlab.launch.estimate import Estimate, estimate
from robustlab.launch.slurm_settings import gpus_per_job
from robustlab.launch.standing import Overview, Standing, counts
from robustlab.launch.submission import packs
from robustlab.sweeps.points import Point


@dataclass(frozen=True)
class Plan:
    """A checked sweep. `folder`: its future folder; `settings`: settings of the jobs (`hydra.launcher`)."""

    folder: Path
    settings: Mapping[str, Any]
    points: Sequence[Point]
    hydra_overrides: Sequence[str]
    config_dirs: Sequence[str]
    standings: Mapping[Path, Standing]
    estimate: Estimate

    @property
    def jobs(self) -> list[list[int]]:
        """The numbers of the points in each job."""
        started = set[Path]()  # two points with the same settings are one run
        numbers = []
        for number, point in enumerate(self.points):
            place = absolute(point)
            if not self.standings[place].is_open and place not in started:
                numbers.append(number)
                started.add(place)
        return list(packs(numbers, self.settings["pack"]))


def make_plan(
    points: Sequence[Point],
    *,
    folder: Path,
    settings: Mapping[str, Any],
    hydra_overrides: Sequence[str],
    config_dirs: Sequence[str],
) -> Plan:
    """Look up where each point stands and how long those that are left may take."""
    outputs = folder.absolute().parents[1]
    overview = Overview(outputs)
    standings = {absolute(point): _standing(overview, point) for point in points}
    left = [point for point in points if not standings[absolute(point)].is_open]
    known = estimate(left, outputs)
    return Plan(folder.absolute(), settings, points, hydra_overrides, config_dirs, standings, known)


def _standing(overview: Overview, point: Point) -> Standing:
    """Return where a point stands; one that a finished run is to be extended to has not been started."""
    found = overview.standing(absolute(point))
    return Standing("not started") if found.state == "done" and not point.is_done else found


def absolute(point: Point) -> Path:
    """Return a point's run folder as it is written in records."""
    return Path(point.run_dir).expanduser().absolute()


def print_plan(plan: Plan, console: Console) -> None:
    """Print the plan as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("points", f"{len(plan.points):,}, all checked")
    for state, count in counts(plan.standings).items():
        table.add_row(f"  {state}", f"{count:,}")
    jobs = plan.jobs
    runs, pack = sum(map(len, jobs)), plan.settings["pack"]
    side_by_side = f", {pack} in parallel per job" if pack > 1 else ""
    table.add_row("to submit", f"{counted(runs, 'run')} in {counted(len(jobs), 'job')}{side_by_side}")
    table.add_row("at a time", f"{counted(min(len(jobs), plan.settings['array_parallelism']), 'job')} at most")
    table.add_row("each job", _resources(plan.settings))
    table.add_row(*_cost(plan))
    console.print(table)


def _resources(settings: Mapping[str, Any]) -> str:
    shown = {"gpus_per_node": "{} GPU", "cpus_per_task": "{} CPU", "mem_gb": "{} GB", "timeout_min": "{} min"}
    words = [text.format(settings[key]) for key, text in shown.items() if settings.get(key)]
    words += [f"{key} {settings[key]}" for key in ("account", "partition", "qos", "constraint") if settings.get(key)]
    return ", ".join(words)


def _cost(plan: Plan) -> tuple[str, str]:
    """Return the heading and the estimate: hours of GPUs, or of CPUs where the jobs ask for no GPU."""
    gpus, known = gpus_per_job(plan.settings), plan.estimate
    unit, each = ("GPU-hours", gpus) if gpus else ("CPU-hours", plan.settings.get("cpus_per_task") or 1)
    if not known.known:
        return unit, "unknown: no finished run of this kind" if known.unknown else "none"
    hours = known.seconds / 3600 * each / plan.settings["pack"]
    rest = f"; {counted(known.unknown, 'run')} unknown" if known.unknown else ""
    return unit, f"about {hours:.3g}, by the seconds per step of earlier runs{rest}"
