"""Measure the cost of fault tolerance: checkpoints at the default interval, and a resumed start against a cold one.

The checkpoint is CrossSplit's on CIFAR-10: two pre-activation ResNet-18 with the momentum of SGD. A start is a process
of its own, a supervised ResNet-18 on the digits that is ended after its first optimizer step.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.startup import until_step
from benchmarks.timing import interleave, middle, row
from robustlab.config.hydra_session import conf_dir
from robustlab.core.tensor_files import tensor_bytes
from robustlab.engine.checkpoint import Checkpoints
from robustlab.models.preact_resnet import preact_resnet18

SAVING = "trainer.checkpoint.every_steps=1"


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
    share = middle([100 * one / every for one in seconds])
    note = f"{tensor_bytes(state) / 1e6:.0f} MB in {statistics.median(seconds):.2f} s, every {every} s"
    return row("share of the time that saving takes", share, goal="<= 1 %", unit="%", note=note)


def _weights_and_momentum() -> dict[str, dict[str, Tensor]]:
    weights = preact_resnet18(num_classes=10, image_shape=(3, 32, 32), proj_dim=128).state_dict()
    return {"weights": weights, "momentum": {name: tensor.clone() for name, tensor in weights.items()}}


def _starting(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as outputs:
        stopped = f"paths.output_dir={outputs}/stopped"
        until_step(2, stopped, SAVING)
        cold = [f"paths.output_dir={outputs}/cold{number}" for number in range(rounds + 1)]
        starts = {
            "cold": lambda: until_step(1, cold.pop(), SAVING),
            "resumed": lambda: until_step(1, stopped, SAVING),
        }
        seconds = interleave(starts, rounds=rounds)
    more = [b - a for a, b in zip(seconds["cold"], seconds["resumed"], strict=True)]
    note = f"a cold start to the first step takes {statistics.median(seconds['cold']):.1f} s"
    return row("a resumed start takes longer by", middle(more), goal="<= 1 s", unit="s", note=note)
