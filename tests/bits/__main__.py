"""Record what all tiny runs compute, or compare what they compute now: `python -m tests.bits record|compare`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before torch is imported, here and in the runs


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
    from tests.bits import record as records
    from tests.bits.execute import execute, with_controls
    from tests.bits.special import RUNS

    arguments = parser().parse_args()
    names = chosen(arguments.only, [*RUNS])
    if arguments.list:
        print("\n".join(names))
        return 0
    path, kind, started = arguments.record or records.RECORD, records.machine(), time.monotonic()
    with _folder(arguments.keep) as folder:
        found = execute(with_controls(names), folder, progress(len(with_controls(names))))
        took = f"{len(found)} runs in {time.monotonic() - started:.0f} s"
        if arguments.verb == "record":
            proven = {name: records.entered(name, found) for name in names}
            runs = {name: {**records.fingerprint(found[name]), "entered": proven[name]} for name in names}
            records.write(path, runs, kind=kind)
            print(f"{took}; {path.name} has {', '.join(names) if len(names) < 6 else f'{len(names)} of them'}")
            return 0
        known = records.recorded(path)
        same_kind = known["machine"] == kind
        problems = {
            name: [
                *records.differences(known["runs"].get(name), found[name], to_the_bit=same_kind),
                *records.not_proven(name, found),
            ]
            for name in names
        }
    print(table(problems, "same" if same_kind else "close, branch entered"))
    print(f"{took}; compared {'to the bit' if same_kind else 'loosely: ' + other_machine(known['machine'], kind)}")
    return 1 if any(problems.values()) else 0


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
    return "\n".join([*lines, f"{wrong} of {len(problems)} differ" if wrong else f"all {len(problems)} are the same"])


def other_machine(before: dict[str, str], now: dict[str, str]) -> str:
    """Say in what two kinds of machine differ."""
    return ", ".join(
        f"{key} {now.get(key)} (recorded: {before.get(key)})" for key in before if before[key] != now.get(key)
    )


def progress(total: int):
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
