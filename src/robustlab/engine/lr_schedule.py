"""Make and advance learning-rate schedulers, and simulate them over a whole run before it starts."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from hydra.utils import get_method
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from robustlab.config.schedules import filled, misfits
from robustlab.core.errors import ConfigError

MakeOptimizer = Callable[..., torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer], Any]
NOTHING = 1e-6
"""Fraction of the largest rate below which an update is taken to have no effect."""


def arguments(schedule: Mapping[str, Any], *, interval: str, updates: Sequence[int]) -> dict[str, Any]:
    """Return the arguments of scheduler.schedule, with placeholders replaced by lengths and timm's t_in_epochs added.

    - interval: "epoch" or "step" (an update).
    - updates: number of updates in each epoch.
    """
    values = filled(schedule, length_of(interval, updates))
    if "t_in_epochs" in inspect.signature(get_method(values["_target_"])).parameters:
        values.setdefault("t_in_epochs", interval == "epoch")
    return values


def length_of(interval: str, updates: Sequence[int]) -> int:
    """Return how many times a scheduler advances: once per epoch, or once per update."""
    return len(updates) if interval == "epoch" else sum(updates)


def after_update(scheduler: Any, *, updates: int, interval: str) -> None:
    """Advance a scheduler that counts updates, after `updates` of them."""
    if hasattr(scheduler, "step_update"):  # timm's schedulers know what they count
        scheduler.step_update(updates)
    elif interval == "step" and not isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step()


def after_epoch(scheduler: Any, *, epochs: int, interval: str, loss: float | None = None) -> None:
    """Advance a scheduler that counts epochs or waits for a plateau of `loss`, after `epochs` epochs."""
    if hasattr(scheduler, "step_update"):  # timm expects the number of the next epoch
        scheduler.step(epochs, loss)
    elif isinstance(scheduler, ReduceLROnPlateau):
        if loss is not None:
            scheduler.step(loss)
    elif interval == "epoch":
        scheduler.step()


def rates(
    optimizer: MakeOptimizer,
    scheduler: MakeScheduler,
    *,
    interval: str,
    updates: Sequence[int],
    device: torch.device | str = "cpu",
) -> list[float]:
    """Return the learning rate of each epoch (or each update, for interval "step"), and the one that would follow.

    Nothing is trained: the schedule acts on an optimizer with a single parameter.

    - updates: number of updates in each epoch.
    - device: device of that parameter, since some optimizers do not support every device.
    """
    stand_in = optimizer([torch.zeros(1, requires_grad=True, device=device)])
    found: list[float] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before")
        made, done = scheduler(stand_in), 0
        for epoch, steps in enumerate(updates, start=1):
            if interval == "epoch":
                found.append(_rate(stand_in))
            for _ in range(steps if interval == "step" else 0):
                found.append(_rate(stand_in))
                done += 1
                after_update(made, updates=done, interval=interval)
            after_epoch(made, epochs=epoch, interval=interval)
    return [*found, _rate(stand_in)]


def _rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def refuse_misfit(
    schedule: Mapping[str, Any],
    *,
    optimizer: MakeOptimizer,
    scheduler: MakeScheduler,
    interval: str,
    updates: Sequence[int],
    device: torch.device | str,
    run: str,
    falls: bool,
) -> None:
    """Raise ConfigError for a schedule that does not fit the training it is used for.

    Checks first the length arguments of known torch and timm classes, then the resulting rates. The remaining arguments
    are as in `rates`.

    - run: name of the training, for messages.
    - falls: whether the rate must change within it.

    Also raises whatever ValueError the schedule's class raises.
    """
    unit, length = ("epochs" if interval == "epoch" else "updates"), length_of(interval, updates)
    found = misfits(schedule, length=length, unit=unit, run=run, falls=falls)
    if found:
        raise ConfigError(found[0])
    *seen, following = rates(optimizer, scheduler, interval=interval, updates=updates, device=device)
    kind = get_method(schedule["_target_"])
    range_test = kind is ExponentialLR and following > seen[0]
    fault = None if range_test or kind is ReduceLROnPlateau else _fault(seen, following, falls=falls)
    if fault:
        raise ConfigError(
            f"scheduler: in {run}, {length:,} {unit} long, {fault}; the lengths in scheduler.schedule count {unit} "
            f"(scheduler.interval={interval})"
        )


def _fault(seen: Sequence[float], following: float, *, falls: bool) -> str | None:
    """Return a message if the rates of a run are wrong, else None. `following`: the rate that would come next."""
    count, largest = len(seen), max(seen)
    rises = all(before <= now for before, now in pairwise(seen))
    if rises and (seen[-2] < seen[-1] if count > 1 else seen[0] < following):
        return f"the learning rate only rises, from {seen[0]:.3g} to {seen[-1]:.3g}: a warm-up that never ends"
    if falls and count > 1 and min(seen) == largest:
        return f"the learning rate never changes from {largest:.3g}"
    idle = sum(rate <= NOTHING * largest for rate in seen)
    if idle > max(1, count // 10):
        return f"the learning rate is zero or almost zero for {idle:,} of them"
    last = max((place for place in range(1, count) if seen[place] != seen[place - 1]), default=count)
    if last < count // 10 and seen[-1] < largest / 2:
        return f"the learning rate has decayed to {seen[-1]:.3g} after the first {last:,} and stays there"
    return None
