"""`robustlab status`: show the status of the runs below a folder, cancel them, or resubmit failed ones."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustlab.config.compose import session
from robustlab.core.errors import ConfigError
from robustlab.launch.slurm_queue import cancel
from robustlab.launch.standing import STATES, Overview, Standing, counts, runs_below
from robustlab.launch.submission import Submission, SubmittedPoint, shared_overrides
from robustlab.launch.submit_command import submit_command

QUIET = ("done", "not started")
"""States for which the count is enough."""


class Status:
    """The standing of every run below `outputs`, of those that a sweep was submitted for and of those run by hand.

    Raises ConfigError if there is neither, ClusterError if SLURM is there and does not answer.
    """

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs.expanduser().absolute()
        if not self.outputs.is_dir():
            raise ConfigError(f"there is no folder {outputs}; name the folder of the runs (paths.output_dir)")
        self.overview = Overview(self.outputs)
        folders = dict.fromkeys([*runs_below(self.outputs), *map(Path, self.overview.latest)])
        if not folders:
            raise ConfigError(f"there are no runs in {outputs}; name the folder of the runs (paths.output_dir)")
        self.standings: dict[Path, Standing] = {folder: self.overview.standing(folder) for folder in folders}

    @property
    def has_failed(self) -> bool:
        """Whether any run has failed, or was killed."""
        return any(standing.state in ("failed", "killed") for standing in self.standings.values())

    def print(self, console: Console, *, at_most: int | None = 20) -> None:
        """Print how many runs are in each state, and the runs that are neither done nor untouched, failed ones first.

        at_most: lines for each state; None for all.
        """
        table = Table(box=None, pad_edge=False)
        for heading in ("state", "runs"):
            table.add_column(heading, justify="right" if heading == "runs" else "left")
        for state, count in counts(self.standings).items():
            table.add_row(state, f"{count:,}")
        console.print(table)
        if self.overview.jobs is None:
            console.print("There is no SLURM here: jobs waiting in its queue are not shown.")
        for state in reversed([state for state in STATES if state not in QUIET]):
            self._print_runs(console, [(f, s) for f, s in self.standings.items() if s.state == state], at_most)

    def _print_runs(self, console: Console, runs: list[tuple[Path, Standing]], at_most: int | None) -> None:
        for folder, standing in runs[:at_most]:
            shown = folder.relative_to(self.outputs) if folder.is_relative_to(self.outputs) else folder
            console.print(Text(f"{standing.state:9} {shown}  {standing.note}".rstrip()), soft_wrap=True)
        if len(runs) > len(runs[:at_most]):
            console.print(f"{runs[0][1].state:9} ... and {len(runs) - len(runs[:at_most])} more; --all shows them")

    def cancel(self) -> list[str]:
        """Cancel the jobs below `outputs` that wait or run; return their ids, of arrays once."""
        queued = {point.job for _, point in self.overview.latest.values()} & set(self.overview.jobs or {})
        if queued:
            cancel(sorted(queued))
        return sorted(queued)

    def resubmit(self) -> list[Submission]:
        """Resubmit the failed runs of sweeps, with the current code and the settings of each sweep."""
        failed: dict[Path, list[SubmittedPoint]] = {}
        submissions = {submission.folder: submission for submission in self.overview.submissions}
        for folder, standing in self.standings.items():
            if standing.state == "failed" and str(folder) in self.overview.latest:  # others were started by hand
                submission, point = self.overview.latest[str(folder)]
                failed.setdefault(submission.folder, []).append(point)
        again = [_again(submissions[folder], points) for folder, points in failed.items()]
        return [submission for submission in again if submission is not None]


def _again(submission: Submission, points: Sequence[SubmittedPoint]) -> Submission | None:
    named = [point.overrides for point in points]
    common = shared_overrides(points)  # paths.output_dir among them
    with contextlib.chdir(submission.cwd), session(submission.config_dirs) as hydra:
        return submit_command(hydra, [*submission.hydra_overrides, *common], points=named)
