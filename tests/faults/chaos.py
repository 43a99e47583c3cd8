"""Kill runs of all methods at random, also while files are written, and compare them with runs that were left alone.

    python -m tests.faults.chaos --kills 4 --seed 0 --methods erm crosssplit

Every other kill comes from outside after a random time, the others at a random write, fsync or rename, half done. The
exit code is 1 if any run does not end, or not with the bits of the run that was left alone.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.end_to_end.harness import assert_same_run, interrupt, run_folder, start, train
from tests.faults.injectors import count_operations, kill_at_operation
from tests.faults.subjects import METHODS, arguments


@dataclass
class Outcome:
    """What was done to the runs of one method."""

    method: str
    seed: int
    by_time: list[float] = field(default_factory=list)
    by_operation: list[int] = field(default_factory=list)
    rounds: int = 0
    starts: int = 0
    duration: float = 0.0

    @property
    def kills(self) -> int:
        """Starts that were ended by SIGKILL."""
        return len(self.by_time) + len(self.by_operation)

    def __str__(self) -> str:
        """Return one line for the report."""
        times = ", ".join(f"{seconds:.2f} s" for seconds in self.by_time)
        operations = ", ".join(map(str, self.by_operation))
        return (
            f"{self.method}, seed {self.seed}: {self.kills} kills in {self.starts} starts, {self.rounds} runs identical"
            f" (after {times or 'none'}; at operations {operations or 'none'})"
        )


def torment(method: str, folder: Path, *, kills: int, seed: int) -> Outcome:
    """Kill runs of a method `kills` times. Raises AssertionError where one does not end as the run left alone."""
    log, whole, counter = folder / "log.txt", folder / "whole", folder / "operations"
    began = time.monotonic()
    assert train(arguments(method, whole), log, before=partial(count_operations, whole, counter)) == 0, log.read_text()
    operations = int(counter.read_text())
    chance, outcome = random.Random(f"{seed} {method}"), Outcome(method, seed, duration=time.monotonic() - began)
    while outcome.kills < kills:
        outcome.rounds += 1
        broken = folder / f"broken{outcome.rounds}"
        ended = False
        while not ended and outcome.kills < kills:
            ended = _strike(method, broken, log, chance, outcome, operations)
        if not ended:
            outcome.starts += 1
            assert train(arguments(method, broken), log) == 0, log.read_text()[-3000:]
        assert_same_run(run_folder(whole), run_folder(broken))
    return outcome


def _strike(method: str, outputs: Path, log: Path, chance: random.Random, outcome: Outcome, operations: int) -> bool:
    """Start a run that will be killed; return whether it ended before that."""
    outcome.starts += 1
    if outcome.kills % 2:
        after = chance.uniform(0, outcome.duration)
        process = start(arguments(method, outputs), log)
        until = time.monotonic() + after
        interrupt(process, signal.SIGKILL, lambda: time.monotonic() >= until)
        if process.exitcode:
            outcome.by_time.append(after)
        else:
            outcome.duration = min(outcome.duration, after)  # it was over by then
    else:
        k = chance.randint(1, operations)
        process = start(arguments(method, outputs), log, before=partial(kill_at_operation, outputs, k))
        process.join(120)
        if process.exitcode:
            outcome.by_operation.append(k)
    assert process.exitcode in (0, -signal.SIGKILL), log.read_text()[-3000:]
    return process.exitcode == 0


def main() -> int:
    """Torment the methods named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2, help="of each method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, metavar="METHOD")
    options = parser.parse_args()
    total, failed = 0, []
    for method in options.methods:
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = torment(method, Path(folder), kills=options.kills, seed=options.seed)
            except AssertionError as error:
                print(f"{method}, seed {options.seed}: FAILED: {error}", flush=True)
                failed.append(method)
                continue
        total += outcome.kills
        print(outcome, flush=True)
    print(f"{total} kills, {len(options.methods) - len(failed)} of {len(options.methods)} methods end bit-identical")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
