"""The amount that a one-shot method prunes (the node `method.target`), and the units that this selects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from robustlab.core.checks import within
from robustlab.core.errors import ConfigError
from robustlab.pruning.cost import Cost
from robustlab.pruning.removal_rules import MEASURES, target_problem
from robustlab.pruning.unit_selection import Ranking, Saved, check_reachable, removed_at, width_left

DEFAULT = 0.5


@dataclass(frozen=True)
class TargetSettings:
    """The share of the network to remove, in [0, 1), by exactly one of three measures; default: half of the neurons.

    - neurons: share of units that are removed or dead.
    - flops: share of FLOPs saved in one image's forward pass, as counted by `cost.forward_flops`.
    - parameters: share of trainable parameters removed.
    """

    neurons: float | None = None
    flops: float | None = None
    parameters: float | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values out of range and for more than one of them."""
        for name in ("neurons", "flops", "parameters"):
            if getattr(self, name) is not None:
                within(f"target.{name}", getattr(self, name), 0, 1, below=True)
        problem = target_problem({name: getattr(self, name) for name in MEASURES})
        if problem is not None:
            raise ConfigError(problem)

    @property
    def measure(self) -> str:
        """The measure that the share refers to: "neurons", "flops" or "parameters"."""
        return next((name for name in MEASURES if getattr(self, name) is not None), MEASURES[0])

    @property
    def share(self) -> float:
        """The share to remove."""
        value = getattr(self, self.measure)
        return DEFAULT if value is None else value


def saved_by(cost: Cost, measure: str) -> Saved:
    """Return a function from the widths of the sets to the share of FLOPs or parameters saved."""
    count, whole = {
        "flops": (cost.flops_at, cost.flops),
        "parameters": (cost.parameters_at, cost.parameters),
    }[measure]
    return lambda widths: 1 - count(widths) / whole


def units_to_remove(ranking: Ranking, measure: str, share: float, cost: Cost) -> dict[str, Tensor]:
    """Return the units whose removal comes closest to the target: set -> (current width,) bool.

    The result is off by at most the weight of a single unit (half of it if units are removed one by one), unless
    `min_width` and `round_to` force more units to remain.

    - measure, share: see `TargetSettings`; whatever is already removed counts.
    """
    if measure == "neurons":
        return ranking.chosen(removed_at(share, ranking.total))
    return ranking.for_cost(share, saved_by(cost, measure))


def check_target(target: TargetSettings, cost: Cost, scored: Sequence[str], *, min_width: int, round_to: int) -> None:
    """Raise `ConfigError` unless removing units of the sets `scored` can reach the target."""
    widths = cost.widths
    if target.measure == "neurons":
        check_reachable(target.share, widths, scored={name: widths[name] for name in scored}, min_width=min_width)
        return
    least: Mapping[str, int] = {
        name: width_left(0, widths[name], min_width=min_width, round_to=round_to) for name in scored
    }
    most = saved_by(cost, target.measure)(least)
    if target.share > most:
        raise ConfigError(
            f"method.target.{target.measure}={target.share}: even with every layer at its minimum width, only "
            f"{most:.3f} of the {target.measure} are removed; lower it or method.surgery.min_width={min_width}, or "
            "exclude fewer sets"
        )
