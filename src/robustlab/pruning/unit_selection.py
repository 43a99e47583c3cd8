"""Select the units to remove for a target: the lowest scores over the whole network or per layer, in rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError, NumericalError

SCOPES = ("global", "per_layer")

Saved = Callable[[Mapping[str, int]], float]
"""Set -> width, to the share of the network's cost that is saved."""


def cumulative_targets(target: float, *, start: float = 0.5, steps: int = 1) -> list[float]:
    """Return the cumulative share removed after each round of scoring (CroP-it; the authors' iterated scoring).

    A single round if `steps` is 1 or the target does not exceed `start`, else `steps` + 2 rounds:
    target - (target - start) * 0.5^i for i = 0 ... steps, then the target.
    """
    if steps == 1 or target <= start:
        return [target]
    return [*(target - (target - start) * 0.5**i for i in range(steps + 1)), target]


def removed_at(target: float, total: int) -> int:
    """Return how many of `total` units a neuron sparsity corresponds to, rounded to the nearest unit."""
    return int(target * total + 0.5)


def width_left(live: int, width: int, *, min_width: int, round_to: int) -> int:
    """Return how many of `width` units remain if `live` of them are live; see `Surgeon` for the two limits."""
    return min(-(-max(live, min_width) // round_to) * round_to, width)


class Ranking:
    """The units of a network in order of removal, lowest score first.

    At least `min_width` units of a set remain, and their number is a multiple of `round_to`. Units with equal scores
    are removed in channel order, from all sets at the same rate, so that an uninformative score favours no set.

    - scores: set -> (current width,) float.
    - original: set -> number of units in the unpruned network, including sets without scores.
    - idle: set -> (current width,) bool, units that are present but count as dead.
    - scope: "global" ranks all units together; "per_layer" removes the same share of every set, with rounding
      remainders assigned by largest remainder.

    Raises `NumericalError` for scores that are not finite.
    """

    def __init__(
        self,
        scores: Mapping[str, Tensor],
        *,
        original: Mapping[str, int],
        idle: Mapping[str, Tensor],
        scope: str = "global",
        min_width: int = 1,
        round_to: int = 1,
    ) -> None:
        self.values = {name: score.detach().to("cpu", torch.float64) for name, score in scores.items()}
        broken = [name for name, value in self.values.items() if not bool(value.isfinite().all())]
        if broken:
            raise NumericalError(f"scores of the units {', '.join(broken)} are not finite; lower optimizer.lr")
        self.order = {name: _ascending(value, idle[name]) for name, value in self.values.items()}
        self.original, self.idle, self.scope = original, idle, scope
        self.min_width, self.round_to = min_width, round_to
        self.total = sum(original.values())

    @property
    def gone(self) -> int:
        """Number of units in scored sets that are already removed or dead."""
        return sum(self.original[name] - len(live) for name, live in self.order.items())

    @property
    def most(self) -> int:
        """Maximum number of units that can be removed."""
        return self.gone + sum(max(len(live) - self.min_width, 0) for live in self.order.values())

    def chosen(self, goal: int) -> dict[str, Tensor]:
        """Return the units to remove so that `goal` units in total are removed or dead: set -> (current width,) bool.

        This includes units that already count as dead. With `round_to`, more units than intended may remain.
        """
        if self.scope == "global":
            counts = self._global_counts(goal - self.gone)
        else:
            quotas = _quotas({name: self.original[name] for name in self.values}, goal, self.min_width)
            counts = {
                name: max(quotas[name] - (self.original[name] - len(live)), 0) for name, live in self.order.items()
            }
        chosen = {name: self.idle[name].clone() for name in self.values}
        for name, live in self.order.items():
            kept = -(-(len(live) - counts[name]) // self.round_to) * self.round_to
            chosen[name][live[: max(len(live) - kept, 0)]] = True
        return chosen

    def widths(self, chosen: Mapping[str, Tensor]) -> dict[str, int]:
        """Return the number of units in each set after `chosen` are removed."""
        found = {name: len(idle) for name, idle in self.idle.items()}
        for name, mask in chosen.items():
            live = int((~mask).sum())
            found[name] = width_left(live, len(mask), min_width=self.min_width, round_to=self.round_to)
        return found

    def for_cost(self, share: float, saved: Saved) -> dict[str, Tensor]:
        """Return the units to remove so that `saved` is closest to `share`, by bisection over their number."""

        def at(goal: int) -> float:
            return saved(self.widths(self.chosen(goal)))

        low, high = self.gone, self.most  # the smallest goal that saves `share` is in [low, high]
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if at(middle) >= share else (middle + 1, high)
        nearest = min((goal for goal in (low - 1, low) if goal >= self.gone), key=lambda goal: abs(at(goal) - share))
        return self.chosen(nearest)

    def _global_counts(self, remove: int) -> dict[str, int]:
        """Return how many units each set loses if the lowest overall are removed, sparing `min_width` per set."""
        best = {name: max(len(live) - self.min_width, 0) for name, live in self.order.items()}
        candidates = {name: live[: best[name]] for name, live in self.order.items()}
        pooled = torch.cat([self.values[name][index] for name, index in candidates.items()])
        owner = torch.cat([torch.full((len(index),), number) for number, index in enumerate(candidates.values())])
        depth = torch.cat([torch.arange(1, best[name] + 1) / max(len(live), 1) for name, live in self.order.items()])
        by_depth = depth.argsort(stable=True)
        ranked = by_depth[pooled[by_depth].argsort(stable=True)]
        losers = owner[ranked[: max(remove, 0)]]
        return dict(zip(self.order, torch.bincount(losers, minlength=len(self.order)).tolist(), strict=True))


def check_reachable(target: float, original: Mapping[str, int], *, scored: Mapping[str, int], min_width: int) -> None:
    """Raise `ConfigError` unless removing from the sets `scored` (name: width) can reach a neuron sparsity."""
    most = sum(max(width - min_width, 0) for width in scored.values())
    total = sum(original.values())
    if removed_at(target, total) > most:
        raise ConfigError(
            f"method.target.neurons={target}: of the {total} units at most {most} can be removed, a sparsity "
            f"of {most / total:.3f}; lower it, or method.surgery.min_width={min_width}, or exclude fewer sets"
        )


def _ascending(values: Tensor, idle: Tensor) -> Tensor:
    """Return the indices of the units that are not idle, lowest score first."""
    order = values.argsort(stable=True)
    return order[~idle[order]]


def _quotas(widths: Mapping[str, int], goal: int, min_width: int) -> dict[str, int]:
    """Return how many of the original units of each set to remove: `goal` in all, the same share of every set."""
    share = goal / sum(widths.values())
    most = {name: max(width - min_width, 0) for name, width in widths.items()}
    quotas = {name: min(int(share * width), most[name]) for name, width in widths.items()}
    for _ in range(goal - sum(quotas.values())):
        open_sets = [name for name in widths if quotas[name] < most[name]]
        if not open_sets:
            break
        quotas[max(open_sets, key=lambda name: share * widths[name] - quotas[name])] += 1
    return quotas
