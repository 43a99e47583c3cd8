"""Which units to remove for a target: the lowest scores over the whole network or layer by layer, in rounds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robustlab.errors import ConfigError, NumericalError

SCOPES = ("global", "per_layer")


def cumulative_targets(target: float, *, start: float = 0.5, steps: int = 1) -> list[float]:
    """Return the neuron sparsity after each round of scoring and removal (CroP-it; the authors' iterated scoring).

    A single round if `steps` is 1 or the target does not exceed `start`; else `steps` + 2 rounds:
    target - (target - start) * 0.5^i for i = 0 ... steps, then the target.
    """
    if steps == 1 or target <= start:
        return [target]
    return [*(target - (target - start) * 0.5**i for i in range(steps + 1)), target]


def removed_at(target: float, total: int) -> int:
    """Return how many of `total` units a neuron sparsity means, to the nearest unit."""
    return int(target * total + 0.5)


def check_reachable(target: float, original: Mapping[str, int], *, scored: Mapping[str, int], min_width: int) -> None:
    """Raise `ConfigError` unless removing from the sets `scored` (name: width) can reach the target."""
    most = sum(max(width - min_width, 0) for width in scored.values())
    total = sum(original.values())
    if removed_at(target, total) > most:
        raise ConfigError(
            f"method.target_neuron_sparsity={target}: of the {total} units at most {most} can be removed, a sparsity "
            f"of {most / total:.3f}; lower it, or method.surgery.min_width={min_width}, or exclude fewer sets"
        )


def lowest(
    scores: Mapping[str, Tensor],
    *,
    original: Mapping[str, int],
    idle: Mapping[str, Tensor],
    target: float,
    scope: str = "global",
    min_width: int = 1,
    round_to: int = 1,
) -> dict[str, Tensor]:
    """Return the units to remove, bool [current width] by set, so that the neuron sparsity becomes `target`.

    scores: float [current width]. original: units of every set of the unpruned network, those without scores included:
    they count in the target. idle: bool [current width], units that are there but count as dead; they are returned as
    well. scope: "global" ranks all units together; "per_layer" takes the same share of every set, the leftovers of
    rounding going to the sets that lost most by it. At least `min_width` units of a set stay, and with `round_to` a
    multiple of it, which makes the sparsity smaller than the target. Equal scores go in order of set and channel.
    Raises `NumericalError` for scores that are not finite.
    """
    values = {name: score.detach().to("cpu", torch.float64) for name, score in scores.items()}
    broken = [name for name, value in values.items() if not bool(value.isfinite().all())]
    if broken:
        raise NumericalError(f"scores of the units {', '.join(broken)} are not finite; lower optimizer.lr")
    order = {name: _ascending(value, idle[name]) for name, value in values.items()}
    goal = removed_at(target, sum(original.values()))
    if scope == "global":
        gone = sum(original.values()) - sum(map(len, order.values()))
        gone -= sum(width for name, width in original.items() if name not in order)
        counts = _global_counts(values, order, goal - gone, min_width)
    else:
        quotas = _quotas({name: original[name] for name in values}, goal, min_width)
        counts = {name: max(quotas[name] - (original[name] - len(live)), 0) for name, live in order.items()}
    chosen = {name: mask.clone() for name, mask in idle.items() if name in values}
    for name, live in order.items():
        kept = -(-(len(live) - counts[name]) // round_to) * round_to
        chosen[name][live[: max(len(live) - kept, 0)]] = True
    return chosen


def _ascending(values: Tensor, idle: Tensor) -> Tensor:
    """Return the indices of the units that are not idle, lowest score first."""
    order = values.argsort(stable=True)
    return order[~idle[order]]


def _global_counts(
    values: Mapping[str, Tensor], order: Mapping[str, Tensor], remove: int, min_width: int
) -> dict[str, int]:
    """Return how many units each set loses if the lowest of all go, the best `min_width` of each set aside."""
    candidates = {name: live[: max(len(live) - min_width, 0)] for name, live in order.items()}
    pooled = torch.cat([values[name][index] for name, index in candidates.items()])
    owner = torch.cat([torch.full((len(index),), number) for number, index in enumerate(candidates.values())])
    losers = owner[pooled.argsort(stable=True)[: max(remove, 0)]]
    return dict(zip(order, torch.bincount(losers, minlength=len(order)).tolist(), strict=True))


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
