"""Gaussian noise added after each update, which pushes live units towards death."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustlab.core import rng
from robustlab.core.checks import at_least
from robustlab.core.errors import ConfigError
from robustlab.pruning.penalty import norms
from robustlab.pruning.strength_schedule import KINDS as SCHEDULES
from robustlab.pruning.strength_schedule import Schedule, span_in_updates

MASKS = ("live", "all", "dead")
LIVE_GRADIENT = 1e-8
"""Minimum |gradient| of a parameter that counts as live (the authors' code)."""
LEAST_STD = 1e-9
"""Below this standard deviation no noise is drawn."""


@dataclass(frozen=True)
class NoiseSettings:
    """Noise on every parameter (DemP, section 2.4), not multiplied by the learning rate.

    - std: standard deviation at the peak; 0 turns noise off.
    - mask: "live" moves the entries with a non-zero task gradient (the paper's text); "all" moves all entries (the
      authors' latest code); "dead" moves only entries with zero gradient, which revives units.
    - schedule, span: see `Schedule`; null for the penalty's.
    - seed: null for the run's seed.
    """

    std: float = 5e-5
    mask: Literal["live", "all", "dead"] = "live"
    schedule: Literal["one_cycle", "constant", "cosine", "warmup", "step"] | None = None
    span: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        at_least("noise.std", self.std, 0)
        for name, choices in (("mask", MASKS), ("schedule", (None, *SCHEDULES))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"method.noise.{name} is {getattr(self, name)!r}; it must be one of {', '.join(map(str, choices))}"
                )

    def strength(self, penalty: Schedule, total: int) -> Schedule:
        """Return sigma as a function of the update.

        - penalty: schedule of the penalty's strength.
        - total: number of updates in the run.
        """
        span = penalty.span if self.span is None else span_in_updates(self.span, total, key="noise.span")
        return Schedule(self.schedule or penalty.kind, self.std, span, penalty.hard_off, penalty.parts)


class UpdateNoise:
    """Draws the noise of one update for all parameters of a network at once, in one flat buffer.

    The noise of update t is a function of (seed, t) and of the parameters' shapes and memory formats. Make a new object
    when the network's parameters change.
    """

    def __init__(self, network: nn.Module, *, mask: str, seed: int) -> None:
        self.mask, self.seed = mask, seed
        self.parameters = [one for one in network.parameters() if one.requires_grad]
        # The penalty also moves gamma in dead units, so the mask of gamma is that of its beta.
        pairs = [(norm.weight, getattr(norm, "bias", None)) for norm in norms(network)]
        offsets = {id(scale): offset for scale, offset in pairs if isinstance(offset, nn.Parameter)}
        self._witnesses = [offsets.get(id(one), one) for one in self.parameters]
        self._orders = [_memory_order(one) for one in self.parameters]
        self._live: Tensor | None = None

    @torch.no_grad()
    def look(self) -> None:
        """Record the mask from the gradients, which must be the task's only."""
        if self.mask == "all":
            return
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in self._witnesses]
        flat = torch.cat([one.permute(order).flatten() for one, order in zip(gradients, self._orders, strict=True)])
        self._live = flat.abs() >= LIVE_GRADIENT if self.mask == "live" else flat == 0

    @torch.no_grad()
    def add(self, t: int, std: float) -> None:
        """Add noise with standard deviation `std` to the parameters where the mask recorded by `look` allows it."""
        device = self.parameters[0].device
        generator = rng.generator(rng.fold(self.seed, "update noise", t), device)
        sizes = [one.numel() for one in self.parameters]
        noise = torch.randn(sum(sizes), generator=generator, device=device)
        if self.mask != "all":
            assert self._live is not None, "call look() before add()"
            noise *= self._live
        parts: list[Tensor] = []
        for part, one, order in zip(noise.split(sizes), self.parameters, self._orders, strict=True):
            back = sorted(range(one.dim()), key=order.__getitem__)
            parts.append(part.view([one.shape[dim] for dim in order]).permute(back))
        weights: list[Tensor] = [one.detach() for one in self.parameters]
        torch._foreach_add_(weights, parts, alpha=std)  # pyright: ignore[reportPrivateImportUsage]


def _memory_order(tensor: Tensor) -> tuple[int, ...]:
    """Return the axes in memory order, so that adding needs no copy."""
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous():
        return (0, 2, 3, 1)
    return tuple(range(tensor.dim()))
