"""Fill in and check the lengths in a learning-rate schedule against the length of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TOTALS = ("total", "total_epochs", "total_steps")
"""Placeholders in a schedule for the length of training, in the unit of `scheduler.interval`."""
_PERIODS = {
    "CosineAnnealingLR": "T_max",
    "PolynomialLR": "total_iters",
    "OneCycleLR": "total_steps",
    "CosineLRScheduler": "t_initial",
    "TanhLRScheduler": "t_initial",
    "PolyLRScheduler": "t_initial",
}
"""Class -> the argument that gives the number of epochs (updates) after which the rate has decayed."""
_WARMUPS = {"LinearLR": "total_iters", "ConstantLR": "total_iters"}
"""Class -> the argument that gives the length of its warm-up; timm's warmup_t is handled separately."""
_MILESTONES = {
    "MultiStepLR": "milestones",
    "StepLR": "step_size",
    "MultiStepLRScheduler": "decay_t",
    "StepLRScheduler": "decay_t",
}
"""Class -> the argument that gives the epoch (update) of the first decay, or a list of milestones."""


def filled(schedule: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return the arguments of a schedule with `length` substituted for the placeholders."""
    return {key: length if isinstance(item, str) and item in TOTALS else item for key, item in schedule.items()}


def misfits(schedule: Mapping[str, Any], *, length: int, unit: str, run: str, falls: bool = True) -> list[str]:
    """Return one message for each length in a schedule that does not fit the run.

    - schedule: the group scheduler.schedule as plain values, placeholders allowed.
    - length, unit: length of training, in "epochs" or "updates".
    - run: name of what has that length, for the message.
    - falls: whether the rate must decay within it.
    """
    values, kind = filled(schedule, length), str(schedule["_target_"]).rpartition(".")[2]
    found = [*_warmups(values, kind, length, unit, run), *_periods(values, kind, length, unit, run)]
    return found or ([*_milestones(values, kind, length, unit, run)] if falls else [])


def _warmups(values: Mapping[str, Any], kind: str, length: int, unit: str, run: str) -> Iterator[str]:
    key = "warmup_t" if "warmup_t" in values else _WARMUPS.get(kind, "")
    start, end = values.get("start_factor", 1 / 3), values.get("end_factor", 1.0)
    if kind == "LinearLR" and _is_number(start) and _is_number(end) and end < start:
        return  # the rate does decay
    if _is_number(values.get(key)) and values[key] > 0 and values[key] >= length:
        yield (
            f"scheduler.schedule.{key}: a warm-up of {values[key]} {unit} uses up all of {run}, which has "
            f"{length:,} {unit}; set it lower or train longer"
        )


def _periods(values: Mapping[str, Any], kind: str, length: int, unit: str, run: str) -> Iterator[str]:
    key = _PERIODS.get(kind)
    if key is None or not _is_number(values.get(key)) or values.get("cycle_limit", 1) != 1:
        return
    warmup = values.get("warmup_t")
    before = warmup if values.get("warmup_prefix") is True and _is_number(warmup) else 0
    exact = kind == "OneCycleLR"
    if not length - (0 if exact else 1) <= before + values[key] <= length:
        after = f" after {before} of warm-up" if before else ""
        fix = str(length - before) if before else "total"
        yield (
            f"scheduler.schedule.{key}: {values[key]} {unit}{after}, but {run} has {length:,}; set "
            f"scheduler.schedule.{key}={fix}"
        )


def _milestones(values: Mapping[str, Any], kind: str, length: int, unit: str, run: str) -> Iterator[str]:
    key = _MILESTONES.get(kind)
    given = values.get(key) if key else None
    steps = given if isinstance(given, list | tuple) else [given]
    early = 1 if kind == "MultiStepLRScheduler" else 0  # timm applies a milestone one epoch before
    numbers = [step for step in steps if isinstance(step, int | float)]
    if steps and len(numbers) == len(steps) and min(numbers) - early >= length:
        yield (
            f"scheduler.schedule.{key}: {', '.join(str(step) for step in steps)} {unit} lie beyond the end of {run}, "
            f"which has {length:,}, so the rate never decays; set lower values, or scheduler=cosine or none"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def schedule_fits_run(cfg: Mapping[str, Any]) -> list[str]:
    """Return messages for schedule lengths that do not fit the run, as far as its length is known without data."""
    interval, schedule = cfg["scheduler"]["interval"], cfg["scheduler"]["schedule"]
    if schedule is None:
        return []
    in_epochs = schedule.get("t_in_epochs")
    if in_epochs is not None and in_epochs != (interval == "epoch"):
        counted = "epochs" if in_epochs else "updates"
        return [
            f"scheduler.schedule.t_in_epochs: {str(in_epochs).lower()} counts {counted}, but scheduler.interval="
            f"{interval} does not; leave t_in_epochs out, it follows scheduler.interval"
        ]
    if interval != "epoch":
        return []
    return misfits(schedule, length=cfg["trainer"]["epochs"], unit="epochs", run="the run (trainer.epochs)")
