"""The record of a sweep in its folder: its points and jobs (`sweep.json`), each point's log and how it ended.

outputs/sweeps/<time>/sweep.json        points, jobs, settings
                      code/             the snapshot that runs
                      points/0007.log   what the run of point 7 printed, over all its starts
                      points/0007.json  how its last start ended; not there before
                      jobs/             submitit's own files
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustlab.core.errors import RunFolderError
from robustlab.core.invocation import hint

SWEEP_FILE = "sweep.json"


@dataclass(frozen=True)
class SubmittedPoint:
    """One run of a submitted sweep. job: the id of its array element; run_dir: absolute."""

    number: int
    overrides: list[str]
    run_dir: str
    job: str


@dataclass(frozen=True)
class Submission:
    """A submitted sweep. cwd: where it was submitted from. hydra_overrides, config_dirs: of the command line."""

    folder: Path
    submitted_at: str
    cwd: str
    hydra_overrides: list[str]
    config_dirs: list[str]
    points: list[SubmittedPoint]

    @property
    def outputs(self) -> Path:
        """The folder that its runs and its record lie below."""
        return self.folder.parents[1]

    def label(self, point: SubmittedPoint) -> str:
        """The overrides of a point that not all points share, or all of them if there is only one point."""
        common = shared_overrides(self.points)
        return " ".join([text for text in point.overrides if text not in common] or point.overrides)

    @property
    def status_line(self) -> str:
        """The command that shows where its runs stand."""
        return hint("status", str(self.outputs))

    def write(self) -> None:
        """Write `sweep.json`, whole or not at all."""
        from robustlab.core.files import write_json

        write_json(self.folder / SWEEP_FILE, {key: value for key, value in asdict(self).items() if key != "folder"})


def shared_overrides(points: Sequence[SubmittedPoint]) -> list[str]:
    """Return the overrides that all points have, in the order of the first."""
    first, *others = points
    return [text for text in first.overrides if all(text in other.overrides for other in others)]


def read_submission(folder: Path) -> Submission:
    """Read `sweep.json`. Raises RunFolderError if it is damaged."""
    path = folder / SWEEP_FILE
    try:
        content = json.loads(path.read_bytes())
        points = [SubmittedPoint(**point) for point in content.pop("points")]
        return Submission(folder=folder, points=points, **content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); move the folder {folder} aside to go on") from error


def read_submissions(outputs: Path) -> list[Submission]:
    """Return the sweeps submitted below a folder of outputs, the newest last."""
    found = [read_submission(path.parent) for path in sorted(outputs.glob(f"sweeps/*/{SWEEP_FILE}"))]
    return sorted(found, key=lambda sweep: sweep.submitted_at)


def log_path(sweep: Path, number: int) -> Path:
    """Return where the run of a point prints."""
    return sweep / "points" / f"{number:04d}.log"


def outcome_path(sweep: Path, number: int) -> Path:
    """Return where it is written how a point's last start ended."""
    return sweep / "points" / f"{number:04d}.json"


def read_outcome(sweep: Path, number: int) -> Mapping[str, Any] | None:
    """Return how a point's last start ended: exit_code, job, restarts, node, ended_at; None before its first end."""
    try:
        return json.loads(outcome_path(sweep, number).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunFolderError(f"{outcome_path(sweep, number)} is damaged ({error}); delete it to go on") from error


def packs(numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield the points of each job: `size` neighbours."""
    for start in range(0, len(numbers), size):
        yield list(numbers[start : start + size])
