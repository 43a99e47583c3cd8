"""What safety costs: writing a checkpoint at the default cadence, and a resumed start beside a cold one.

The checkpoint is CrossSplit's on CIFAR-10: two pre-activation ResNet-18 with the momentum of SGD. A start is a process
of its own, a supervised ResNet-18 on the digits that is ended after its first optimizer step.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.timing import interleave, row
from robustlab.config.compose import conf_dir
from robustlab.engine.checkpoint import Checkpoints, tensor_bytes
from robustlab.models.preact_resnet import preact_resnet18

REACHED = 42
STEPS = f"""
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
RUN = (
    "method=erm",
    "model=resnet18",
    "compare=null",
    "tracker=local",
    "trainer.device=cpu",
    "trainer.checkpoint.every_steps=1",
)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    rounds = 3 if quick else 9
    return [_saving(rounds), _starting(rounds)]


def _saving(rounds: int) -> dict[str, Any]:
    state = {f"network{number}": _weights_and_momentum() for number in (1, 2)}
    every = OmegaConf.load(conf_dir() / "trainer" / "default.yaml").checkpoint.every_seconds
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        seconds = interleave({"save": lambda: checkpoints.save(state)}, rounds=rounds)["save"]
    values = {"ratio": statistics.median(seconds), "low": min(seconds), "high": max(seconds)}
    share = {name: 100 * value / every for name, value in values.items()}
    note = f"{tensor_bytes(state) / 1e6:.0f} MB in {values['ratio']:.2f} s, every {every} s"
    return row("share of the time that saving takes", share, goal="<= 1 %", unit="%", note=note)


def _weights_and_momentum() -> dict[str, dict[str, Tensor]]:
    weights = preact_resnet18(num_classes=10, image_shape=(3, 32, 32), proj_dim=128).state_dict()
    return {"weights": weights, "momentum": {name: tensor.clone() for name, tensor in weights.items()}}


def _starting(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as outputs:
        stopped = f"paths.output_dir={outputs}/stopped"
        _start(2, stopped)
        cold = [f"paths.output_dir={outputs}/cold{number}" for number in range(rounds + 1)]
        starts = {"cold": lambda: _start(1, cold.pop()), "resumed": lambda: _start(1, stopped)}
        seconds = interleave(starts, rounds=rounds)
    more = [b - a for a, b in zip(seconds["cold"], seconds["resumed"], strict=True)]
    values = {"ratio": statistics.median(more), "low": min(more), "high": max(more)}
    note = f"a cold start to the first step takes {statistics.median(seconds['cold']):.1f} s"
    return row("a resumed start takes longer by", values, goal="<= 1 s", unit="s", note=note)


def _start(steps: int, *overrides: str) -> None:
    """Start a run and end it after some steps of its own."""
    command = [sys.executable, "-c", STEPS, str(steps), *RUN, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != REACHED:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-500:]}")
