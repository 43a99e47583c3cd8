"""Find dead units: silent on every sample and position of a set of images (DemP, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robustlab.core.checks import at_least
from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.models.units import Units, UnitSet

MODES = ("auto", "exact", "eps", "sum", "saturated_const")


@dataclass(frozen=True)
class DeathSettings:
    """Definition of dead units, and the samples on which they are tested.

    - mode: "exact": the largest |output| over all samples and positions is 0. "eps": it is at most `eps`. "sum": the
      output summed over a minibatch is at most `eps` in every minibatch (the authors' rule; with activations that can
      be negative such units are not silent, and removing them changes the function). "saturated_const": the output
      varies by at most `eps`. "auto": "exact" for ReLU, "sum" for all other activations.
    - num_samples: number of training images for checks during training.
    - final_num_samples: number for the last check; null for all.
    - batch_size: size of the minibatches.
    - require_train_dead: also require units to be dead with the minibatch's BatchNorm statistics, not just the running
      ones.
    - fold_mean: fold the mean or constant output of units removed by "sum" and "saturated_const" into their readers.
    """

    mode: Literal["auto", "exact", "eps", "sum", "saturated_const"] = "auto"
    eps: float = 0.0
    num_samples: int = 2048
    batch_size: int = 512
    final_num_samples: int | None = None
    require_train_dead: bool = False
    fold_mean: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"method.death.mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        at_least("death.eps", self.eps, 0)
        for name in ("num_samples", "batch_size"):
            at_least(f"death.{name}", getattr(self, name), 1)
        if self.final_num_samples is not None:
            at_least("death.final_num_samples", self.final_num_samples, 1)


@dataclass(frozen=True)
class DeathReport:
    """The result of a check.

    - dead: set -> (current width,) bool, on the CPU.
    - constants: set -> mean output of each unit, (current width,) float32 on the CPU, for sets whose removed units are
      to be folded into their readers.
    """

    dead: dict[str, Tensor]
    constants: dict[str, Tensor]


@torch.no_grad()
def find_dead(
    network: nn.Module, units: Units, batches: Iterable[Tensor], *, settings: DeathSettings, runtime: Runtime
) -> DeathReport:
    """Return the units that are dead on `batches` in eval mode.

    Outputs are taken after the activation; for a block's output, after the sum and its activation. Each rank may pass
    different batches: a unit is dead if it is dead on all of them, and every rank gets the same result. Synchronises
    with the device once, at the end. Training flags, buffers and the global random generator are left unchanged.

    - batches: images, (B, C, H, W) float.
    """
    rules = {one.name: _rule(network, units, one, settings.mode) for one in units.sets}
    passes = [False, True] if settings.require_train_dead else [False]
    watches = {training: {one.name: _Watch(network, one, rules[one.name]) for one in units.sets} for training in passes}
    count = 0
    with _undisturbed(network, runtime.device) as restore_buffers:
        for images in batches:
            for training in passes:
                network.train(training)
                with runtime.autocast(), _hooks(network, units, watches[training]):
                    network.forward(images)  # the raw forward: a compiled one does not call hooks
                if training:
                    restore_buffers()
            count += 1
    found = _reduced([watches[training][one.name] for training in passes for one in units.sets], count, runtime)
    dead: dict[str, Tensor] = {}
    constants: dict[str, Tensor] = {}
    for index, one in enumerate(units.sets):
        rule, (largest, mean) = rules[one.name], found[index]
        dead[one.name] = _is_dead(rule, largest, settings)
        if settings.require_train_dead:
            dead[one.name] &= _is_dead(rule, found[len(units.sets) + index][0], settings)
        if settings.fold_mean and rule in ("sum", "constant") and _can_fold(units, one):
            constants[one.name] = (largest[0] - largest[1]) / 2 if rule == "constant" else mean
    return DeathReport(dead, constants)


def _rule(network: nn.Module, units: Units, one: UnitSet, mode: str) -> str:
    """Return how a set is tested: "silent", "sum" or "constant"."""
    if mode == "auto":
        rectified = all(isinstance(network.get_submodule(path), nn.ReLU) for path in one.activations)
        return "silent" if rectified else "sum"
    if mode == "saturated_const":  # a constant on a skip cannot be folded anywhere, so only zeros are removed there
        return "constant" if _can_fold(units, one) else "silent"
    return "sum" if mode == "sum" else "silent"


def _can_fold(units: Units, one: UnitSet) -> bool:
    return len(one.activations) == 1 and all(skip.source != one.name for skip in units.skips)


def _is_dead(rule: str, largest: Tensor, settings: DeathSettings) -> Tensor:
    """Return which units are dead according to the rows of `_Watch.largest`; NaN is not dead."""
    value = largest.sum(dim=0) if rule == "constant" else largest[0]
    return value <= (0.0 if settings.mode in ("auto", "exact") else settings.eps)


class _Watch:
    """Running statistics of the outputs of one set.

    - largest: (2, width) float32, running maxima of |a| ("silent"), of the sum over a minibatch ("sum"), or of a and -a
      ("constant", the only rule that uses the second row).
    - total: (width,) float32, the sum of all outputs per unit.
    - count: the number of these outputs.
    """

    def __init__(self, network: nn.Module, one: UnitSet, rule: str) -> None:
        modules = [network.get_submodule(path) for path in one.writers]
        weight = next(module.weight for module in modules if isinstance(module.weight, Tensor))
        # Channels are axis 1 of feature maps and the last axis of tokens, which come from a linear layer.
        self.axis = -1 if any(isinstance(module, nn.Linear) for module in modules) else 1
        self.rule, self.name, self.calls = rule, one.name, 0
        self.largest = torch.full((2, len(weight)), -torch.inf, device=weight.device)
        self.total = torch.zeros(len(weight), device=weight.device)
        self.count = torch.zeros(1, device=weight.device)

    def __call__(self, module: nn.Module, _: object, output: Tensor) -> None:
        """Record the outputs of a call, (N, C), (N, C, H, W), or tokens with channels last."""
        axis = self.axis % output.dim()
        others = [dim for dim in range(output.dim()) if dim != axis]
        self.calls += 1
        if self.rule == "silent":
            high = output.amax(others)
            rows = [high if isinstance(module, nn.ReLU) else torch.maximum(high, -output.amin(others))]
        elif self.rule == "constant":
            rows = [output.amax(others), -output.amin(others)]
        else:
            rows = [output.sum(others, dtype=torch.float32)]
            self.total += rows[0]
            self.count += output.numel() // output.shape[axis]
        for index, row in enumerate(rows):
            self.largest[index] = torch.maximum(self.largest[index], row.float())


def _reduced(watches: list[_Watch], batches: int, runtime: Runtime) -> list[tuple[Tensor, Tensor]]:
    """Return (largest, mean) of each watch over all ranks, on the CPU."""
    silent = [watch.name for watch in watches if batches and not watch.calls]
    assert not silent, f"no activation of {silent} was called: the network's units() names the wrong modules"
    maxima = torch.cat([watch.largest.flatten() for watch in watches])
    sums = torch.cat([torch.cat([watch.total, watch.count]) for watch in watches])
    if runtime.world_size > 1:
        dist.all_reduce(maxima, op=dist.ReduceOp.MAX)
        dist.all_reduce(sums)
    values = torch.cat([maxima, sums]).cpu()
    maxima, sums = values[: len(maxima)], values[len(maxima) :]
    found = []
    for watch in watches:
        width = len(watch.total)
        largest, maxima = maxima[: 2 * width].view(2, width), maxima[2 * width :]
        total, count, sums = sums[:width], sums[width], sums[width + 1 :]
        assert largest[0].isneginf().sum() == 0, "a check needs at least one batch"
        found.append((largest, total / count.clamp(min=1)))
    return found


@contextmanager
def _hooks(network: nn.Module, units: Units, watches: Mapping[str, _Watch]) -> Iterator[None]:
    handles = [
        network.get_submodule(path).register_forward_hook(watches[one.name])
        for one in units.sets
        for path in one.activations
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _undisturbed(network: nn.Module, device: torch.device) -> Iterator:
    """Restore training flags, buffers and the global generator on exit; yield a function that restores the buffers."""
    flags = {module: module.training for module in network.modules()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def restore() -> None:
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield restore
        finally:
            for module, training in flags.items():
                module.training = training
