"""The penalty that kills units, applied as a gradient: lambda * dR/dp for the targeted parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from robustlab.core.checks import at_least
from robustlab.core.errors import ConfigError
from robustlab.models.units import Units
from robustlab.pruning.strength_schedule import KINDS as SCHEDULES
from robustlab.pruning.strength_schedule import Schedule, span_in_updates

KINDS = ("l1", "l2", "pos_l1", "pos_l2")
TARGETS = ("all", "no_scale", "no_norm_no_bias", "scale_only", "offset_only", "norm_params", "unit_weights")


@dataclass(frozen=True)
class PenaltySettings:
    """The penalty R, its strength, and the parameters it covers (DemP, section 2.2).

    - kind: "l1" is the sum of |p|, "l2" half the sum of p^2; "pos_l1" and "pos_l2" are the same for max(p, 0).
    - target: "scale_only" is the gamma of every norm, including those of shortcuts; "offset_only" the beta;
      "norm_params" both; "all" every parameter; "no_scale" all but the gammas; "no_norm_no_bias" all but norms and
      biases; "unit_weights" weights and biases of the layers that write removable units (fc1 in a transformer).
    - peak, schedule, span, hard_off, parts: schedule of lambda, see `Schedule`; a span up to 1 is a share of the run, a
      larger one counts updates.
    - floor: number of live units of a set at which its penalty stops; None for never (the authors' code).
    """

    kind: Literal["l1", "l2", "pos_l1", "pos_l2"] = "l1"
    target: Literal[
        "all", "no_scale", "no_norm_no_bias", "scale_only", "offset_only", "norm_params", "unit_weights"
    ] = "scale_only"
    peak: float = 0.02
    schedule: Literal["one_cycle", "constant", "cosine", "warmup", "step"] = "one_cycle"
    span: float = 1.0
    hard_off: bool = False
    parts: int = 4
    floor: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("kind", KINDS), ("target", TARGETS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"method.reg.{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}"
                )
        at_least("reg.peak", self.peak, 0)
        at_least("reg.parts", self.parts, 1)
        if self.floor is not None:
            at_least("reg.floor", self.floor, 1)

    def strength(self, total: int) -> Schedule:
        """Return lambda as a function of the update, for a run of `total` updates."""
        return Schedule(
            self.schedule, self.peak, span_in_updates(self.span, total, key="reg.span"), self.hard_off, self.parts
        )


def norms(network: nn.Module) -> list[nn.Module]:
    """Return the normalisation layers of a network, in order: BatchNorm, LayerNorm, GroupNorm, and timm's own."""
    kinds = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    found = [one for one in network.modules() if isinstance(one, kinds) or type(one).__name__.endswith("Norm")]
    return [one for one in found if isinstance(getattr(one, "weight", None), nn.Parameter)]


def targeted(network: nn.Module, units: Units, target: str) -> list[nn.Parameter]:
    """Return the trainable parameters that a target covers, in the network's order.

    Raises `ConfigError` if there are none, e.g. "scale_only" in a network without norms.
    """
    scales = {id(norm.weight) for norm in norms(network)}
    offsets = {id(getattr(norm, "bias", None)) for norm in norms(network)}
    biases = {id(getattr(module, "bias", None)) for module in network.modules()}
    every = {id(parameter) for parameter in network.parameters()}
    writers = [network.get_submodule(path) for one in units.sets for path in one.writers]
    written = {id(parameter) for module in writers for parameter in module.parameters(recurse=False)}
    chosen = {
        "all": every,
        "no_scale": every - scales,
        "no_norm_no_bias": every - scales - offsets - biases,
        "scale_only": scales,
        "offset_only": offsets,
        "norm_params": scales | offsets,
        "unit_weights": written - scales - offsets,
    }[target]
    found = [one for one in network.parameters() if id(one) in chosen and one.requires_grad]
    if not found:
        raise ConfigError(
            f"method.reg.target={target}: the network has no such parameters; without norms, use method.reg.target=all"
        )
    return found


@torch.no_grad()
def penalty(parameters: Sequence[nn.Parameter], kind: str) -> Tensor:
    """Return R of the parameters, a float32 scalar on their device."""
    values = torch.cat([parameter.flatten() for parameter in parameters]).float()
    if kind.startswith("pos"):
        values = values.clamp_min(0)
    return values.abs().sum() if kind.endswith("l1") else values.square().sum() / 2


@torch.no_grad()
def add_gradient(
    parameters: Sequence[nn.Parameter], kind: str, strength: float, *, factors: Mapping[int, Tensor] | None = None
) -> None:
    """Add strength * dR/dp to each parameter's gradient, equivalent to a loss term but without a graph.

    dR/dp is sign(p) for "l1", p for "l2", and the same for max(p, 0) otherwise.

    - factors: position of the parameter -> (rows,) float, multipliers for the rows of partially penalised parameters.
    """
    gradients: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    directions: list[Tensor] = [parameter.detach() for parameter in parameters]
    if kind.startswith("pos"):
        directions = list(torch._foreach_clamp_min(directions, 0.0))  # pyright: ignore[reportPrivateImportUsage]
    if kind.endswith("l1"):
        directions = list(torch._foreach_sign(directions))  # pyright: ignore[reportPrivateImportUsage]
    for place, factor in (factors or {}).items():
        directions[place] = directions[place] * factor.view(-1, *[1] * (directions[place].dim() - 1))
    torch._foreach_add_(gradients, directions, alpha=strength)  # pyright: ignore[reportPrivateImportUsage]
