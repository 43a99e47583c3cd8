"""Run the points of a study one by one, each in a separate process, and record the results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import robustlab
from robustlab.config.compose import session
from robustlab.config.default_experiment import with_default_experiment
from robustlab.config.run_names import NOT_IDENTITY, NOT_IDENTITY_NESTED
from robustlab.config.stored_config import read_starts
from robustlab.core.console import duration
from robustlab.core.errors import EXIT_PREEMPTED, ConfigError, NumericalError
from robustlab.engine.git import git_state, uncommitted
from robustlab.study.results_file import append, appending, metrics_of, read_lines, row_key, row_of
from robustlab.study.study_plan import Point, Study, key_of, resolve
from robustlab.sweeps.points import checked

PACKAGE = Path(robustlab.__file__).parent
LOCAL = ("compare=null", "tracker=local")
"""What every point has unless the study says otherwise: one run, and files only."""
RECORDED = (0, NumericalError.exit_code)
"""Exit codes that are results. After others (a stop, a wrong command, a full disk) the point is run again next time."""
LONGEST_MESSAGE = 500


@dataclass
class Runner:
    """Where and how the points of a study run.

    results: the file of lines. output: folder of the runs. local: overrides of this machine, which change no result and
    are not recorded. allow_dirty: run code that is not committed; the lines say so. program: what takes the overrides.
    """

    study: Study
    results: Path
    output: Path
    local: Sequence[str] = ()
    allow_dirty: bool = False
    program: Sequence[str] = (sys.executable, "-m", "robustlab.train")
    _folders: dict[tuple[str, ...], Path] = field(default_factory=dict)
    _child: subprocess.Popen[bytes] | None = None
    _stopped: bool = False

    def pending(self, only: str = "") -> list[Point]:
        """Return the points without a line whose command contains `only`. Raises ConfigError if no command does."""
        standing = {row_key(row) for row in read_lines(self.results)}
        chosen = [point for point in self.study.points if only in point.command]
        if not chosen:
            raise ConfigError(
                f"--only {only!r}: no command of {self.study.name} has this text in it; --list shows them"
            )
        return [point for point in chosen if point.key not in standing]

    def run(self, only: str = "") -> int:
        """Run what is pending; return the exit code: 0, 85 after a stop, else the largest of points without a line.

        Raises ConfigError, before anything runs or is written, for points that do not compose, settings of the machine
        that would change results, and code that is not committed.
        """
        self._check_local()
        changed = uncommitted(PACKAGE, "src", "conf")
        if changed and not self.allow_dirty:
            raise ConfigError(
                f"src/ or conf/ has uncommitted changes ({', '.join(changed[:3])}"
                f"{', ...' if len(changed) > 3 else ''}), so no commit would identify the code of the results; commit "
                "them, run from another checkout, or pass --dirty"
            )
        pending = self.pending(only)
        self._find_folders(pending)
        say(f"{self.study.name}: {len(pending)} of {len(self.study.points)} points to run")
        if not pending:
            return 0
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with appending(self.results):
                return self._run_all(pending, dirty=bool(changed))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _run_all(self, pending: Sequence[Point], *, dirty: bool) -> int:
        codes = []
        for number, point in enumerate(pending, 1):
            code = self._with_needs(point, dirty=dirty, label=f"[{number}/{len(pending)}]")
            if code == EXIT_PREEMPTED or self._stopped:
                say(f"{self.study.name}: stopped; run the same command to continue")
                return EXIT_PREEMPTED
            if code not in RECORDED:
                codes.append(code)
        return max(codes, default=0)

    def _with_needs(self, point: Point, *, dirty: bool, label: str) -> int:
        """Run a point after what it needs; return the exit code of the first that did not end with 0."""
        for name, overrides in point.needs.items():
            code = self._needed(Point(overrides, overrides), dirty=dirty)
            if code in RECORDED and code != 0:
                message = f"not run: {name}, which it needs, failed"
                say(f"{label} {point.command}: {message}")
                append(self.results, row_of(self.study.name, point, exit_code=code, message=message))
            if code != 0:
                return code
        return self._one(point, dirty=dirty, label=label)

    def _needed(self, point: Point, *, dirty: bool) -> int:
        """Run what a point needs, unless its folder is there; return its exit code, which may be that of its line."""
        rows = {row_key(row): row for row in read_lines(self.results)}
        row = rows.get(point.key)
        if row is not None and (row["exit_code"] != 0 or _results(self._folders[point.overrides]) is not None):
            return int(row["exit_code"])
        return self._one(point, dirty=dirty, label="[needed]", record=row is None)

    def _one(self, point: Point, *, dirty: bool, label: str, record: bool = True) -> int:
        folder = self._folders[point.overrides]
        commit = git_state(PACKAGE)["git_sha"]
        began = time.perf_counter()
        code, message = self._train(point, folder)
        seconds = time.perf_counter() - began
        how = {0: "finished", EXIT_PREEMPTED: "stopped, resumable"}.get(code, f"failed (exit code {code})")
        say(f"{label} {point.command}: {how} in {duration(seconds)}, {folder}" + (f"\n  {message}" if message else ""))
        if record and code in RECORDED:
            row = {"exit_code": code, "seconds": round(seconds, 1), **_facts(folder, commit=commit, dirty=dirty)}
            append(self.results, row_of(self.study.name, point, **row, **({"message": message} if code else {})))
        return code

    def _train(self, point: Point, folder: Path) -> tuple[int, str]:
        """Run `train` in a separate process; return its exit code and, if that is not 0, its error message."""
        log = self.output / "logs" / f"{folder.parent.name}-{folder.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        with log.open("wb") as file:
            if self._stopped:
                return EXIT_PREEMPTED, ""
            # a separate session: Ctrl-C reaches only this process, which forwards it once
            self._child = subprocess.Popen(
                [*self.program, *self._overrides(point)],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
            if self._stopped:
                self._child.terminate()
            code = self._child.wait()
            self._child = None
        return code, "" if code in (0, EXIT_PREEMPTED) else _complaint(log)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)

    def _overrides(self, point: Point) -> list[str]:
        folders = {name: str(self._folders[overrides]) for name, overrides in point.needs.items()}
        chosen = [*resolve(point, folders), f"paths.output_dir={self.output}", *self.local]
        keys = {key_of(text) for text in chosen}
        return [*(text for text in LOCAL if key_of(text) not in keys), *chosen]

    def _check_local(self) -> None:
        for text in self.local:
            key = key_of(text)
            harmless = key.partition(".")[0] in set(NOT_IDENTITY) - {"seed", "hydra"} or key in NOT_IDENTITY_NESTED
            if not harmless:
                raise ConfigError(f"--set {text}: {key} changes what a run computes; write it into the study instead")

    def _find_folders(self, points: Sequence[Point]) -> None:
        """Compose and check all points, what they need first; note where each runs. Raises one ConfigError."""
        needed = dict.fromkeys(overrides for point in points for overrides in point.needs.values())
        with session() as hydra:
            for group in ([Point(overrides) for overrides in needed], points):
                named = [with_default_experiment(self._overrides(point)) for point in group]
                for point, one in zip(group, checked(hydra, named, []), strict=True):
                    self._folders[point.overrides] = Path(one.run_dir).expanduser().absolute()


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def _results(folder: Path) -> dict[str, Any] | None:
    """Return the results of a finished run; None if there are none."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return results if results.get("finished") else None


def _facts(folder: Path, *, commit: str | None, dirty: bool) -> dict[str, Any]:
    """Return commit, dirty, machine, seconds and metrics of a run, from what it wrote itself.

    commit, dirty: of the code now, which is not that of a run that was finished before.
    """
    try:
        starts = read_starts(folder)
    except (OSError, ValueError):
        starts = []  # NaN before the first step was done
    used = list(dict.fromkeys(start["code"]["git_sha"] or "unknown" for start in starts)) or [commit or "unknown"]
    older = any(one != commit for one in used if commit is not None)
    results = _results(folder)
    return {
        "commit": "+".join(one[:12] for one in used),
        "dirty": dirty or (older and any(start["code"]["dirty"] for start in starts)),
        "machine": _machine(starts[-1]) if starts else "unknown",
        **({} if results is None else {"seconds": results["seconds"], "finished_at": results["finished_at"]}),
        **({} if results is None else metrics_of(results)),
    }


def _machine(start: Mapping[str, Any]) -> str:
    hardware, asked = start["hardware"], start["config"]["trainer"]["device"]
    gpus = [] if asked == "cpu" else hardware["gpus"]
    return gpus[0]["name"] if gpus else f"cpu, {hardware['torch_threads']} threads"


def _complaint(log: Path) -> str:
    """Return the last thing that `train` said of an error, else the last line of what it printed."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    message = text[text.rfind("\ntrain: ") + 1 :] if "train: " in text else text.rpartition("\n")[2]
    return message[:LONGEST_MESSAGE]
