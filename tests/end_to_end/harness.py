"""Runs of the command line in processes of their own, forked from one that has torch imported already (0.1 s each)."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

SMALL = ("trainer.threads=1", "trainer.device=cpu", "tracker=local", "compare=null")
"""Overrides of every run here: one thread, since the number of threads changes the last bits of a result."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "robustlab.engine.run",
        "robustlab.train",
        *("torch._inductor", "torchmetrics.classification", "sklearn.datasets"),  # every run: two seconds
        "matplotlib.figure",  # runs that draw
    ]
)


def _child(
    arguments: Sequence[str], output: str, environment: dict[str, str], before: Callable[[], None] | None
) -> None:
    os.setsid()  # so that a signal can go to the group: the run and its workers
    os.environ.clear()  # of the process that this one is forked from, which has those of the test that came first
    os.environ.update({name: value for name, value in environment.items() if value})  # "": as if it were not set
    with open(output, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from robustlab.train import main

    if before is not None:
        before()
    code = main(list(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def start(
    arguments: Sequence[str],
    output: Path,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> BaseProcess:
    """Start `train <arguments>`; what it prints is appended to `output`. before: run in the child first, picklable."""
    command = [*SMALL, *arguments]
    process = _context.Process(
        target=_child, args=(command, str(output), dict(os.environ) | (environment or {}), before), daemon=False
    )
    process.start()
    return process


def train(
    arguments: Sequence[str],
    output: Path,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
    *,
    timeout: float = 120,
) -> int:
    """Run `train <arguments>` to its end, as `start`, and return the exit code."""
    process = start(arguments, output, environment, before)
    process.join(timeout)
    if process.is_alive():
        kill_group(process, signal.SIGKILL)
        raise AssertionError(f"still running after {timeout} s:\n{output.read_text()[-2000:]}")
    assert process.exitcode is not None
    return process.exitcode


def kill_group(process: BaseProcess, number: signal.Signals) -> None:
    """Send a signal to the run and its workers."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):  # it has not made its group yet, or all of it has ended
            os.kill(process.pid, number)


def interrupt(process: BaseProcess, number: signal.Signals, when: Callable[[], bool], *, timeout: float = 60) -> None:
    """Send a signal to the run's process group as soon as `when()` holds (or it has ended), and wait for its end."""
    deadline = time.monotonic() + timeout
    while process.is_alive() and not when() and time.monotonic() < deadline:
        time.sleep(0.002)
    if process.is_alive():
        kill_group(process, number)
    process.join(timeout)
    assert not process.is_alive()


def run_folder(outputs: Path) -> Path:
    """Return the only run folder below `outputs`."""
    folders = [path.parent for path in outputs.glob("*/seed*/config.yaml")]
    assert len(folders) == 1, folders
    return folders[0]


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    """Return the rows of a metrics file."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of all learners in the last checkpoint: weights, buffers and optimizer state."""
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    tensors: dict[str, torch.Tensor] = {}

    def collect(prefix: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            tensors[prefix] = value
        elif isinstance(value, dict):
            for key, part in value.items():
                collect(f"{prefix}/{key}", part)
        elif isinstance(value, list | tuple):
            for number, part in enumerate(value):
                collect(f"{prefix}/{number}", part)

    collect("learners", state["learners"])
    collect("method", [rank["method"] for rank in state["ranks"]])
    return tensors


def assert_same_run(first: Path, second: Path) -> None:
    """Two run folders must hold the same weights, optimizer states, metrics and results, to the bit."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different[:5]
    assert (first / "metrics.jsonl").read_text() == (second / "metrics.jsonl").read_text()
    results = [json.loads((folder / "results.json").read_text()) for folder in (first, second)]
    for part in ("selection", "final", "noise", "steps", "stage_ends", "remarks"):
        assert results[0][part] == results[1][part]
