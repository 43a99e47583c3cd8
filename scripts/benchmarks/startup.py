"""P11 and P12: seconds until `train --help`, `--cfg job` and a wrong setting are answered, and until the first step.

Every measurement runs in a separate process. The first update is that of a supervised ResNet-18 on the digits,
which need no download; the process is ended right after it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.timing import middle, row

TRAIN = "import sys; from robustlab.train import main; sys.exit(main())"
REACHED = 42
UNTIL_STEP = f"""
import itertools, os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook

numbers, last = itertools.count(1), int(sys.argv.pop(1))

def stop(*_):
    if next(numbers) == last:
        os._exit({REACHED})

register_optimizer_step_post_hook(stop)
from robustlab.train import main
sys.exit(main())
"""
SUPERVISED = ("method=erm", "model=resnet18", "compare=null", "tracker=local", "trainer.device=cpu")


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the table: medians of 5 (quick: 2) after one unmeasured start."""
    rounds = 2 if quick else 5
    cases: dict[str, tuple[str, Sequence[str], int]] = {
        "train --help": (TRAIN, ("--help",), 0),
        "train --cfg job": (TRAIN, ("--cfg", "job"), 0),
        "a misspelt key": (TRAIN, ("method.temprature=1",), 2),
        "import robustlab": ("import robustlab", (), 0),
    }
    rows = [
        _row(name, [_answer(*case) for _ in range(rounds + 1)][1:], goal="<= 0.1 s" if "import" in name else "<= 1.0 s")
        for name, case in cases.items()
    ]
    imports = [_answer("import torch", (), 0) for _ in range(rounds + 1)][1:]
    steps = [_first_step() for _ in range(rounds + 1)][1:]
    note = f"of it import torch {statistics.median(imports):.1f} s"
    return [*rows, _row("start to first optimizer step, ResNet-18", steps, goal="<= 6 s", note=note)]


def _row(name: str, seconds: Sequence[float], *, goal: str, note: str = "") -> dict[str, Any]:
    return row(name, middle(seconds), goal=goal, unit="s", note=note)


def _answer(program: str, arguments: Sequence[str], expected: int) -> float:
    """Return the wall seconds of a process that must end with the exit code `expected`."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != expected:
        raise RuntimeError(f"exit code {done.returncode}, not {expected}: {done.stderr[-500:]}")
    return seconds


def until_step(number: int, *overrides: str) -> float:
    """Return the wall seconds of a supervised run that ends itself after its `number`-th optimizer step."""
    return _answer(UNTIL_STEP, (str(number), *SUPERVISED, *overrides), REACHED)


def _first_step() -> float:
    with tempfile.TemporaryDirectory() as outputs:
        return until_step(1, f"paths.output_dir={outputs}")
