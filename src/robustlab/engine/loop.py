"""Run the training loop: stages, epochs, steps and evaluation, with checkpoints possible between any two updates."""

from __future__ import annotations

import time
from typing import Any

from robustlab.engine.diagnostic import Table, clock_at
from robustlab.engine.evaluate import evaluate_splits
from robustlab.engine.method import Method, Position, Stage
from robustlab.engine.session import Session, save

RANK_AGREEMENT_STEPS = 10
"""Ranks agree on stopping and saving only every so many steps, since agreeing costs a synchronisation."""


def fit(session: Session) -> str | None:
    """Train from the session's current position to the end; return the name of the signal that stopped it, or None.

    Raises NumericalError when a loss is NaN or infinite; the last good checkpoint is then still available.
    """
    cursor = session.cursor
    stages = list(session.method.stages())
    while cursor.stage < len(stages):
        stage = stages[cursor.stage]
        while cursor.epoch < stage.epochs and not session.is_over:
            started, samples = time.perf_counter(), cursor.samples
            stopped = not _train_epoch(session, stage)
            if not stopped:
                seconds = time.perf_counter() - started
                _finish_epoch(session, stage, seconds, (cursor.samples - samples) / max(seconds, 1e-9))
                at_the_end = session.is_over or (stage is stages[-1] and cursor.epoch == stage.epochs)
                stopped = not at_the_end and _stop_or_save(session)
            if stopped:
                save(session)
                return session.stop.name or "a signal on another rank"
        if session.is_over:
            break
        cursor.stage, cursor.epoch = cursor.stage + 1, 0
    save(session)
    return None


def _train_epoch(session: Session, stage: Stage) -> bool:
    """Run the remaining steps of the epoch; return False if a signal stopped it before its end."""
    cursor, method, settings = session.cursor, session.method, session.settings
    steps = method.steps_per_epoch(stage, cursor.epoch)
    started = time.perf_counter()
    if session.reached_max_steps:  # a signal arrived right after the last step
        return True
    for item in method.batches(stage, cursor.epoch, cursor.step):
        position = Position(stage.name, cursor.epoch, cursor.step, cursor.global_step)
        session.meter.add(method.train_step(item, position))
        cursor.step += 1
        cursor.global_step += 1
        cursor.samples += len(item) * session.runtime.world_size
        if cursor.global_step % settings.log_every == 0:
            _log_interval(session, stage)
        session.progress.step(stage.name, cursor.epoch, cursor.step, steps, samples=cursor.samples)
        if cursor.step == steps:
            for learner in method.learners.values():
                learner.flush()
        if _interrupted(session, ended=cursor.step == steps):
            cursor.seconds += time.perf_counter() - started
            return False
        if session.reached_max_steps:
            break
    cursor.seconds += time.perf_counter() - started
    return True


def _interrupted(session: Session, *, ended: bool) -> bool:
    """Save if it is time to, and return whether to stop here. Neither happens while gradients are being accumulated.

    - ended: whether this was the last step of its epoch, after which ranks always agree, however short the epoch.
    """
    cursor, settings = session.cursor, session.settings
    if any(learner.pending for learner in session.method.learners.values()):
        return False
    by_step = settings.checkpoint_steps is not None and cursor.global_step % settings.checkpoint_steps == 0
    if session.runtime.world_size > 1 and cursor.global_step % RANK_AGREEMENT_STEPS and not (ended or by_step):
        return False
    return _stop_or_save(session, by_step=by_step)


def _stop_or_save(session: Session, *, by_step: bool = False) -> bool:
    """Return whether any rank was asked to stop; if none was, save if it is time to. All ranks must call it."""
    settings, runtime = session.settings, session.runtime
    if runtime.any_rank(bool(session.stop)):
        return True
    by_time = settings.checkpoint_seconds is not None and (
        time.monotonic() - session.saved_at >= settings.checkpoint_seconds
    )
    if by_step or runtime.any_rank(by_time):
        save(session)
    return False


def _log_interval(session: Session, stage: Stage) -> None:
    cursor = session.cursor
    values = {f"train/{name}": value for name, value in session.meter.interval().items()}
    values |= {f"train/lr/{name}": learner.lr for name, learner in session.method.trained(stage).items()}
    session.trackers.log(values, stage=stage.name, epoch=cursor.epoch, step=cursor.global_step, split="train")
    session.progress.metrics(values)


def _finish_epoch(session: Session, stage: Stage, seconds: float, samples_per_second: float) -> None:
    """Advance schedulers, log the epoch's means and diagnostics, evaluate, and apply selection rules."""
    cursor, method, settings = session.cursor, session.method, session.settings
    means = session.meter.epoch()
    for learner in method.trained(stage).values():
        learner.end_epoch(means.get("loss"))
    values = {f"train/epoch_{name}": value for name, value in means.items()}
    if session.data.true_noise_rate:
        values["diagnostics/noise_rate"] = session.data.true_noise_rate
    values |= dict(method.end_epoch(stage, cursor.epoch))
    values |= _diagnose(session)
    last = cursor.epoch + 1 == stage.epochs or session.reached_max_steps
    if stage.evaluated and ((cursor.epoch + 1) % settings.evaluate_every == 0 or last):
        measured = evaluate_splits(
            method,
            session.data,
            batch_size=settings.eval_batch_size,
            runtime=session.runtime,
            by_class="ig" in settings.selection,
        )
        before = sum(earlier.epochs for earlier in list(method.stages())[: cursor.stage])
        session.selection.update(before + cursor.epoch, measured, lambda: _weights(method))
        values |= measured
        if last:
            session.stage_ends[stage.name] = dict(measured)
    session.final |= {name: value for name, value in values.items() if not name.startswith("time/")}
    timing = {"time/epoch_seconds": seconds}
    if samples_per_second:  # zero if a resumed epoch had no steps left
        timing["time/samples_per_second"] = samples_per_second
    session.trackers.log(
        {**values, **timing}, stage=stage.name, epoch=cursor.epoch, step=cursor.global_step, split="epoch"
    )
    session.progress.epoch(stage.name, cursor.epoch, {**values, **timing})
    cursor.epoch, cursor.step = cursor.epoch + 1, 0


def _diagnose(session: Session) -> dict[str, float]:
    """Let the diagnostics that are due measure; return their numbers and hand figures and tables to the trackers."""
    cursor = session.cursor
    clock = clock_at(list(session.method.stages()), cursor.stage, epoch=cursor.epoch, global_step=cursor.global_step)
    numbers: dict[str, float] = {}
    if clock is None:
        return numbers
    for diagnostic in session.diagnostics.values():
        for name, value in diagnostic.measure(clock).items() if diagnostic.due(clock) else ():
            if isinstance(value, float | int):
                numbers[name] = float(value)
            elif isinstance(value, Table):
                session.trackers.table(name, value.columns, value.rows)
            else:
                session.trackers.figure(name, value, step=cursor.global_step)
    return numbers


def _weights(method: Method) -> dict[str, Any]:
    """Return learner name -> host copies of the weights that a method predicts with.

    If units were removed, "units" holds learner name -> `Surgeon.state_dict`: a network must be cut to these units
    before it can load the weights.
    """
    names = method.learners if method.predictors is None else method.predictors
    learners = {name: method.learners[name] for name in names}
    weights: dict[str, Any] = {
        name: {
            key: value.detach().to("cpu", copy=True) for key, value in learner.inference_network.state_dict().items()
        }
        for name, learner in learners.items()
    }
    surgeons = {name: one.surgeon for name, one in learners.items() if one.surgeon is not None}
    units = {name: surgeon.state_dict() for name, surgeon in surgeons.items() if surgeon.removed}
    return {**weights, "units": units} if units else weights
