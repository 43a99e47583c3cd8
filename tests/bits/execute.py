"""Do the tiny runs, two at a time, each in a process of its own with one thread."""

from __future__ import annotations

import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bits.outcome import Outcome
from tests.bits.pictures import write_pictures
from tests.bits.special import RUNS
from tests.end_to_end import harness

LIMIT = 600
"""Seconds after which a run counts as hung; they take a few seconds each."""


def with_controls(names: Iterable[str]) -> list[str]:
    """Return names of runs and of those that their proofs compare them with, in the order of `RUNS`."""
    wanted = {*names}
    while missing := {control for name in wanted for control in RUNS[name].controls} - wanted:
        wanted |= missing
    return [name for name in RUNS if name in wanted]


class FailedRunError(Exception):
    """A run that ended with another exit code than 0, with what it printed last."""


def execute(
    names: Iterable[str], folder: Path, done: Callable[[str], None] = lambda name: None
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Do the named runs below `folder`, calling `done` after each.

    Returns what the runs gave, and of those that failed why, both by name.
    """
    write_pictures(folder / "data")
    found: dict[str, Outcome] = {}
    failed: dict[str, str] = {}

    def one(name: str) -> None:
        try:
            found[name] = run_one(name, folder)
        except FailedRunError as error:
            failed[name] = str(error)
        done(name)

    with ThreadPoolExecutor(2) as pool:
        deque(pool.map(one, names), maxlen=0)
    return found, failed


def run_one(name: str, folder: Path) -> Outcome:
    """Do one run, whose data lie in `folder`/data already. Raises FailedRunError."""
    run, own = RUNS[name], folder / name.replace("/", "-")
    own.mkdir(parents=True)
    logs = [own / f"rank{rank}.txt" for rank in range(run.processes)]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "WORLD_SIZE": str(run.processes)}
    processes = [
        harness.start(
            command(name, own, folder),
            log,
            {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if len(logs) > 1 else None,
            before=_blank_pictures,
        )
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.join(LIMIT)
    codes = [process.exitcode for process in processes]
    said = "\n".join(log.read_text() for log in logs)
    for process in processes:
        if process.is_alive():
            harness.kill_group(process, signal.SIGKILL)
    if any(code != 0 for code in codes):  # None: it was still running
        raise FailedRunError(f"exit codes {codes}: {' / '.join(said.splitlines()[-3:])}")
    return Outcome(harness.run_folder(own), said)


def command(name: str, outputs: Path, folder: Path) -> list[str]:
    """Return the overrides of a run that writes below `outputs` and reads `folder`/data."""
    places = {"output_dir": outputs, "data_dir": folder / "data", "cache_dir": outputs / "cache"}
    return [*RUNS[name].overrides, *(f"paths.{key}={path}" for key, path in places.items())]


def _blank_pictures() -> None:
    """Leave pictures empty: nothing reads them here, and to draw them took half of the time."""
    from matplotlib.figure import Figure

    Figure.savefig = lambda self, fname, **options: Path(fname).touch()  # type: ignore[method-assign]


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])
