"""The program of each process in `test_ranks`: every method of conf/method, trained on a share of each batch.

A share has other statistics than a batch, so BatchNorm here uses those of all ranks. What is left are sums in another
order: values differ in their last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustlab.core.errors import ConfigError
from robustlab.engine.build_method import build_method
from robustlab.engine.evaluate import evaluate_splits
from robustlab.engine.method import Method
from tests.methods.grouped import grouped_digits
from tests.methods.harness import RUNTIME, flat, run
from tests.ranks import joined

SAMPLES, BATCH = 125, 18
"""125 = 6 * 18 + 17: no batch can be shared evenly by 4, and none that is left is so small that 4 leave it out."""


@dataclass(frozen=True)
class Case:
    """A configuration to train, and what the test calls it."""

    label: str
    cfg: DictConfig


def make(case: Case, *, rank: int, world_size: int) -> Method:
    data = grouped_digits(subset=SAMPLES, rank=rank, world_size=world_size)
    precision = "fp32" if case.cfg.trainer.precision == "auto" else case.cfg.trainer.precision
    return build_method(case.cfg, data, replace(RUNTIME, rank=rank, world_size=world_size, precision=precision))


def outcome(case: Case, *, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """Train a method and return what it can be judged by: losses, metrics of epochs, tensors, units, evaluations."""
    method = make(case, rank=rank, world_size=world_size)
    steps: list[dict[str, Tensor]] = []
    inner = method.train_step

    def watched(item: Any, position: Any) -> dict[str, Tensor]:
        scalars = dict(inner(item, position))
        steps.append(scalars)
        return scalars

    method.train_step = watched  # type: ignore[method-assign]
    ends = run(method)
    runtime = method.context.runtime
    logged = {name for one in steps for name in one}  # of the own share
    return {
        "losses": [float(runtime.mean_over_ranks(one["loss"].double())) for one in steps],
        "ends": [{k: v for k, v in end.items() if k not in logged and not k.startswith("time/")} for end in ends],
        "learners": flat({name: learner.state_dict() for name, learner in method.learners.items()}),
        "method": flat(method.state_dict()),
        "live": {
            f"{name}/{units}": live.tolist()
            for name, learner in method.learners.items()
            if learner.surgeon is not None
            for units, live in learner.surgeon.live.items()
        },
        "measured": evaluate_splits(method, method.context.data, batch_size=50, runtime=runtime),
    }


class _Sum(torch.autograd.Function):
    """The sum over ranks; of its gradients, too, since each rank's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def synchronised(self: _BatchNorm, values: Tensor) -> Tensor:
    """The forward of BatchNorm with the statistics of all ranks' rows, whose gradients come back to them."""
    if not self.training:
        return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
    axes = [0, *range(2, values.dim())]
    exact = values.double()
    own = [exact.sum(axes), exact.square().sum(axes), exact.new_full((1,), values.numel() / values.shape[1])]
    sums = torch.cat(own)
    if dist.is_initialized():
        sums = _Sum.apply(sums)
    count, width = sums[-1], values.shape[1]
    mean = sums[:width] / count
    variance = sums[width:-1] / count - mean.square()
    if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), share)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), share)
    shape = (1, width, *[1] * (values.dim() - 2))
    normed = ((exact - mean.view(shape)) / (variance.view(shape) + self.eps).sqrt()).to(values.dtype)
    return normed * self.weight.view(shape) + self.bias.view(shape)


def prepare() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d):
        kind.forward = synchronised  # type: ignore[method-assign]


def work(rank: int, world_size: int, cases: Sequence[Case], folder: str) -> None:
    """Join the others (one rank alone joins nobody), and write what came out of each case."""
    prepare()
    found: dict[str, Any] = {}
    with joined(rank, world_size, folder):
        for case in cases:
            try:
                found[case.label] = outcome(case, rank=rank, world_size=world_size)
            except ConfigError as error:  # on all ranks, or the others wait in vain
                found[case.label] = str(error)
        torch.save(found, Path(folder) / f"{world_size}-{rank}.pt")
