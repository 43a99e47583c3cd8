"""One run from its configuration: data -> method -> fit -> results, and the baseline that it is shown beside."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robustlab.config.baseline import compose_baseline, has_baseline
from robustlab.config.occupant import EPOCHS, is_done, plain, refusal
from robustlab.config.overlays import value_notes
from robustlab.data.module import Data
from robustlab.engine.build import build_data, build_method
from robustlab.engine.checkpoint import Checkpoints, seed_global_streams
from robustlab.engine.describe import describe
from robustlab.engine.ending import errors_recorded, record_ending
from robustlab.engine.environment import explained
from robustlab.engine.extension import refuse_extension, reopen
from robustlab.engine.folder import prepare_folder, read_results, refuse_detour, set_results_aside
from robustlab.engine.identity import (
    HISTORY,
    check_resumable,
    has_changed,
    history,
    is_extended,
    result_name,
    run_identity,
)
from robustlab.engine.lock import locked
from robustlab.engine.loop import fit
from robustlab.engine.measured import check_metric
from robustlab.engine.preflight import CPU, check_beside, check_parts
from robustlab.engine.runtime import Runtime
from robustlab.engine.selection import rules_for
from robustlab.engine.session import Session, Settings, check_space, restore
from robustlab.engine.signals import StopFlag, StoppedEarly
from robustlab.engine.world import World
from robustlab.errors import EXIT_PREEMPTED, ConfigError, PeerError
from robustlab.files import made, remove_temporary, write_json
from robustlab.methods.base import Method
from robustlab.tracking.base import Trackers, selection_summary
from robustlab.tracking.console import make_console, say, warn
from robustlab.tracking.groups import group_record, print_group_table
from robustlab.tracking.noise import noise_line
from robustlab.tracking.progress import Progress
from robustlab.tracking.summary import print_summary


@dataclass(frozen=True)
class Outcome:
    """How a run ended: results are None where a signal stopped it."""

    results: dict[str, Any] | None
    folder: Path
    exit_code: int
    was_finished: bool = False


def run(
    cfg: DictConfig,
    overrides: list[str],
    *,
    group: str | None = None,
    compose_again: Callable[[list[str]], DictConfig] | None = None,
    flags: Sequence[str] = (),
) -> int:
    """Do the run that a checked configuration describes; return the exit code.

    overrides: the command line's, for the record. group: the sweep this run is a point of. compose_again: composes
    other overrides in the same setting; given, the method named by `compare` is run too and shown in the summary.
    flags: what the command line had beside the overrides, for the commands that the summary suggests.
    """
    beside = None
    if compose_again is not None and has_baseline(cfg):
        beside = compose_baseline(compose_again, cfg, overrides)
        _refuse_occupied(beside[0])
        check_beside(beside[0], cfg, None, CPU)
    outcome = run_one(cfg, overrides, group=group, beside=beside and beside[0])
    if outcome.results is None:
        return outcome.exit_code
    baseline, was_finished = None, outcome.was_finished
    if beside is not None:
        other = beside[0]
        differs = "" if _training(other) == _training(cfg) else ", but for the training that it has in this setting"
        say(f"Now {cfg.compare} with the same settings{differs}, to compare with (compare=null leaves it out)")
        compared = run_one(*beside, group=group)
        if compared.results is None:
            return compared.exit_code
        baseline = compared.results
        was_finished = was_finished and compared.was_finished
    if group is not None and was_finished:
        return 0  # of what a sweep finds finished, its own line is enough
    if World.from_environment().is_main:
        named = [text for text in overrides if not text.lstrip("+").startswith("paths.run_dir=")]  # one run's own
        print_summary(outcome.results, baseline, run_dir=outcome.folder, arguments=[*flags, *named])
    return 0


def _training(cfg: DictConfig) -> list[Any]:
    """Return what an overlay of the method may have changed beside the method."""
    return [plain(cfg)[group] for group in ("trainer", "optimizer", "scheduler")]


def run_one(
    cfg: DictConfig, overrides: list[str], *, group: str | None = None, beside: DictConfig | None = None
) -> Outcome:
    """Run, resume, or find finished one configuration. Raises UserError; a signal gives exit code 85.

    beside: the configuration that is to run next on the same data, which is checked before this one's first step.
    """
    folder = Path(cfg.paths.run_dir).expanduser()
    with errors_recorded(folder), StopFlag() as stop, explained(cfg, folder):
        runtime = Runtime.from_config(cfg.trainer)
        with runtime.watching_peers():
            outcome = _run_one(cfg, overrides, folder, _Around(runtime, stop, group, beside))
    if outcome.exit_code and folder.is_dir():  # a run that was stopped while it read its data has none
        record_ending(folder, outcome.exit_code, str(stop.name), f"stopped by {stop.name}")
    return outcome


@dataclass(frozen=True)
class _Around:
    """What a run is started with beside its own settings."""

    runtime: Runtime
    stop: StopFlag
    group: str | None
    beside: DictConfig | None


@dataclass(frozen=True)
class _Built:
    """What a run is made of, before any file is written."""

    data: Data
    method: Method
    settings: Settings


def _run_one(cfg: DictConfig, overrides: list[str], folder: Path, around: _Around) -> Outcome:
    runtime, output_dir = around.runtime, Path(cfg.paths.output_dir).expanduser()
    if runtime.is_main:
        _refuse_occupied(cfg)
        refuse_detour(folder, output_dir)
    finished = runtime.gather(_finished(cfg, folder) if runtime.is_main else None)[0]  # others may see other files
    if finished is not None:
        return finished
    with contextlib.ExitStack() as held:

        def claim() -> None:
            if runtime.is_main:
                held.enter_context(made(folder))
                prepare_folder(folder, resume=bool(cfg.resume), output_dir=output_dir)
                held.enter_context(locked(folder))

        is_there = bool(cfg.resume) and folder.is_dir()
        if is_there:
            claim()
        try:
            built = _build(cfg, around)
            if not is_there:  # a command that cannot work leaves nothing behind, and a run to be replaced in its place
                claim()
            runtime.barrier()
            finished = _finished(cfg, folder) if runtime.world_size == 1 else None  # by another process, just now
            return finished or _train(cfg, overrides, folder, around, built)
        except StoppedEarly:
            name = around.stop.name
            say(f"stopped by {name} before the first step; the same command begins, or goes on, with the training")
            return Outcome(None, folder, EXIT_PREEMPTED)


def _refuse_occupied(cfg: DictConfig) -> None:
    """Raise ConfigError where another run has the folder of this one."""
    message = refusal(Path(cfg.paths.run_dir).expanduser(), cfg)
    if message is not None:
        raise ConfigError(message)


def _finished(cfg: DictConfig, folder: Path) -> Outcome | None:
    """Return the outcome of a run that has ended before, unless it is to start anew or to be extended."""
    results = read_results(folder) if cfg.resume else None
    if results is None or not is_done(cfg):
        return None
    say(f"{cfg.method.name}, seed {cfg.seed}: already finished in {folder} (resume=false starts anew)")
    return Outcome(results, folder, 0, was_finished=True)


def _build(cfg: DictConfig, around: _Around) -> _Built:
    """Read the data and build the method, after all that can be checked without data; nothing is written."""
    runtime, beside = around.runtime, around.beside
    check_parts(cfg)
    with around.stop.at_once() if runtime.world_size == 1 else contextlib.nullcontext():  # ranks must stop together
        data = build_data(cfg, runtime)
    if beside is not None:
        check_beside(beside, cfg, data, runtime)
    say(noise_line(data.noise_record(), samples=len(data.train_indices)))
    method, settings = build_method(cfg, data, runtime), _settings(cfg, data)
    check_metric(cfg.get("optimized_metric"), method, data, by_class="ig" in settings.selection)
    return _Built(data, method, settings)


def _train(cfg: DictConfig, overrides: list[str], folder: Path, around: _Around, built: _Built) -> Outcome:
    runtime, stop, group, data, method = around.runtime, around.stop, around.group, built.data, built.method
    identity = run_identity(cfg, runtime)
    checkpoints = Checkpoints(folder / "checkpoints")
    if not runtime.is_main:
        runtime.barrier()  # reading moves damaged files aside: rank 0 comes first
    state, warnings = checkpoints.load()
    if runtime.is_main:
        remove_temporary(folder)
        runtime.barrier()
    saved = {} if state is None else state["identity"]
    if state is not None:
        warnings += check_resumable(saved, identity, folder=folder, force=cfg.resume == "force")
        identity |= history(saved, identity, cfg)
    for warning in warnings:
        warn(warning)
    for note in value_notes(cfg):
        say(note)
    _refuse_differences(
        runtime,
        {
            "settings": [identity["run_name"], identity["seed"]],
            "checkpoint": None if state is None else state["cursor"]["global_step"],
            "training labels": data.noise_record()["hash"],
        },
    )
    changed, extended = bool(state) and has_changed(saved, identity), bool(state) and is_extended(saved, cfg)
    if extended:
        refuse_extension(method, saved, name=cfg.method.name, steps=cfg.trainer.max_steps)
    groups = group_record(data)
    if groups is not None and state is None and runtime.is_main:
        print_group_table(groups, make_console(sys.stderr))
    resolved = plain(cfg)
    if runtime.is_main:
        if extended:
            set_results_aside(folder, epochs=saved["settings"][EPOCHS])
        describe(folder, config=resolved, overrides=overrides, data=data, identity=identity, warnings=warnings)
    trackers = Trackers.from_config(
        cfg.tracker,
        run_dir=folder,
        run_name=f"{identity['run_name']}-seed{cfg.seed}",
        config=resolved,
        tags=list(cfg.tags),
        group=group,
        resume_state=state["trackers"] if state else None,
        is_main=runtime.is_main,
    )
    exit_code = 1
    try:
        stages = {stage.name: stage.epochs for stage in method.stages()}
        with Progress(
            cfg.tracker.progress, total_epochs=sum(stages.values()), stages=stages, is_main=runtime.is_main
        ) as progress:
            session = Session(
                method=method,
                data=data,
                runtime=runtime,
                trackers=trackers,
                progress=progress,
                checkpoints=checkpoints,
                settings=built.settings,
                stop=stop,
                identity=identity,
            )
            check_space(session)
            if state is not None:
                restore(session, state, retune=changed)
                if extended:
                    reopen(session, saved)
                say(f"resuming in {folder} at epoch {session.cursor.epoch}, step {session.cursor.step}")
            else:
                seed_global_streams(cfg.seed)
            signal = fit(session)
        if signal is not None:
            exit_code = EXIT_PREEMPTED
            step = session.cursor.global_step
            say(f"stopped by {signal} after step {step}, saved; the same command goes on from there")
            return Outcome(None, folder, exit_code)
        results = _results(cfg, session, result_name(identity), group)
        results |= {key: identity[key] for key in HISTORY if key in identity}
        results |= {} if groups is None else {"groups": groups}
        trackers.summary(selection_summary(results))
        if runtime.is_main:
            for picture, path in method.finish(folder).items():
                trackers.image(picture, path, step=session.cursor.global_step)
            write_json(folder / "results.json", results)
        exit_code = 0
        return Outcome(results, folder, exit_code)
    finally:
        trackers.finish(exit_code)


def _refuse_differences(runtime: Runtime, facts: Mapping[str, Any]) -> None:
    """Raise PeerError where processes of one run would go different ways, which nothing later would tell."""
    first, *others = runtime.gather(dict(facts))
    for rank, other in enumerate(others, 1):
        names = [name for name in first if other[name] != first[name]]
        if names:
            raise PeerError(
                f"process {rank} has other {', '.join(names)} than process 0; start all processes with one command, "
                "with paths.output_dir on a file system that all nodes share and the same data on each"
            )


def _epochs(session: Session) -> int:
    """Return the epochs that were done, also those of a run that trainer.max_steps ended."""
    cursor = session.cursor
    return sum(stage.epochs for stage in list(session.method.stages())[: cursor.stage]) + cursor.epoch


def _settings(cfg: DictConfig, data: Data) -> Settings:
    trainer = cfg.trainer
    return Settings(
        eval_batch_size=trainer.eval_batch_size,
        log_every=trainer.log_every,
        evaluate_every=trainer.evaluate_every,
        max_steps=trainer.max_steps,
        selection=rules_for(data, trainer.selection),
        checkpoint_seconds=trainer.checkpoint.every_seconds,
        checkpoint_steps=trainer.checkpoint.every_steps,
    )


def _results(cfg: DictConfig, session: Session, name: str, group: str | None) -> dict[str, Any]:
    networks = session.method.learners.values()
    derived = list(session.data.derived_metrics(session.final))
    return {
        "finished": True,
        "run_name": name,
        "name": cfg.name,
        "method": cfg.method.name,
        "dataset": cfg.dataset.name,
        "model": f"{cfg.model.name} (frozen)" if cfg.get("features") else cfg.model.name,
        "noise": session.data.noise_record(),
        "seed": cfg.seed,
        "epochs": _epochs(session),
        "steps": session.cursor.global_step,
        "parameters": sum(p.numel() for learner in networks for p in learner.network.parameters()),
        "seconds": round(session.cursor.seconds, 3),
        "selection": session.selection.results(),
        "final": session.final,
        "stage_ends": session.stage_ends,
        "remarks": list(session.method.remarks(session.final, session.stage_ends)),
        **({"derived": derived} if derived else {}),
        **({"skipped_images": session.data.skipped} if session.data.skipped else {}),
        "group": group,
        "tags": list(cfg.tags),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
