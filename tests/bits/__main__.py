"""Record what all tiny runs compute, or compare what they compute now: `python -m tests.bits record|compare`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bits.outcome import Outcome


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bits", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in {"record": "write the record", "compare": "exit 1 where a run differs from it"}.items():
        one = verbs.add_parser(verb, help=text)
        one.add_argument("--only", metavar="NAMES", help="runs, separated by commas; * stands for anything: demp,two_*")
        one.add_argument("--keep", metavar="FOLDER", type=Path, help="a new folder for the runs; else a temporary one")
        one.add_argument("--record", metavar="FILE", type=Path, help="default: recorded.json beside this program")
        one.add_argument("--list", action="store_true", help="print the names of the runs and end")
    return parser


def main() -> int:
    """Do what the command line says; return the exit code."""
    arguments = parser().parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before torch is imported, here and in the runs
    from tests.bits import record as records
    from tests.bits.special import RUNS

    names = chosen(arguments.only, [*RUNS])
    if arguments.list:
        print("\n".join(names))
        return 0
    path = arguments.record or records.RECORD
    with _folder(arguments.keep) as folder:
        return record(names, folder, path) if arguments.verb == "record" else compare(names, folder, path)


def record(names: list[str], folder: Path, path: Path) -> int:
    """Write what the named runs compute to `path`, once the first of them has given the same twice; return 0."""
    from tests.bits import record as records

    found, failed, took = _timed(names, folder)
    missed = [f"{name}: {why}" for name, why in failed.items()]
    missed += [f"{name}: {why}" for name in names if name in found for why in records.not_proven(name, found)]
    if missed:
        sys.exit("python -m tests.bits: nothing recorded\n" + "\n".join(missed))
    runs = {name: {**records.fingerprint(found[name]), "entered": records.entered(name, found)} for name in names}
    again, _, _ = _timed(names[:1], folder / "again")
    difference = records.differences(runs[names[0]], again[names[0]], to_the_bit=True)
    if difference:
        sys.exit(f"python -m tests.bits: {names[0]} does not give the same twice: {difference[0]}")
    records.write(path, runs, kind=records.machine())
    print(
        f"{took}, {names[0]} twice; {path.name} has {', '.join(names) if len(names) < 6 else f'{len(names)} of them'}"
    )
    return 0


def compare(names: list[str], folder: Path, path: Path) -> int:
    """Print how the named runs differ from the record at `path`; return 1 if any does."""
    from tests.bits import record as records

    known, kind = records.recorded(path), records.machine()
    same_kind = known["machine"] == kind
    found, failed, took = _timed(names, folder)
    problems = {
        name: [failed[name]]
        if name in failed
        else [
            *records.differences(known["runs"].get(name), found[name], to_the_bit=same_kind),
            *records.not_proven(name, found),
        ]
        for name in names
    }
    print(table(problems, "same" if same_kind else "close, branch entered"))
    print(f"{took}; compared {'to the bit' if same_kind else 'loosely: ' + other_machine(known['machine'], kind)}")
    return 1 if any(problems.values()) else 0


def _timed(names: list[str], folder: Path) -> tuple[dict[str, Outcome], dict[str, str], str]:
    from tests.bits.execute import execute, with_controls

    started, wanted = time.monotonic(), with_controls(names)
    found, failed = execute(wanted, folder, progress(len(wanted)))
    return found, failed, f"{len(wanted)} runs in {time.monotonic() - started:.0f} s"


def chosen(only: str | None, names: list[str]) -> list[str]:
    """Return the names that match one of the patterns; all without any. Exits where a pattern matches none."""
    patterns = only.split(",") if only else ["*"]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            sys.exit(f"python -m tests.bits: no run is called {pattern}; --list prints their names")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def table(problems: dict[str, list[str]], good: str) -> str:
    """Return a line for each run: its name and what differs."""
    width = max(map(len, problems))
    lines = [f"{name:{width}}  {'; '.join(found) or good}" for name, found in problems.items()]
    wrong = sum(bool(found) for found in problems.values())
    return "\n".join([*lines, f"{wrong} of {len(problems)} differ" if wrong else f"none of {len(problems)} differ"])


def other_machine(before: dict[str, str], now: dict[str, str]) -> str:
    """Say in what two kinds of machine differ."""
    return ", ".join(
        f"{key} {now.get(key)} (recorded: {before.get(key)})" for key in before if before[key] != now.get(key)
    )


def progress(total: int) -> Callable[[str], None]:
    """Return a function that shows how many runs are done, where somebody looks on."""
    count = iter(range(1, total + 1))

    def show(name: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{next(count)}/{total} {name:30}", end="", file=sys.stderr)

    return show


@contextlib.contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="bits") as name:
        yield Path(name)


if __name__ == "__main__":
    sys.exit(main())
