"""One run from its configuration: data -> method -> fit -> results, and the baseline that it is shown beside."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robustlab.config.resolvers import run_name
from robustlab.data.module import Data
from robustlab.engine.build import build_data, build_method
from robustlab.engine.checkpoint import Checkpoints
from robustlab.engine.folder import locked, prepare_folder, read_json, read_results, write_json, write_text
from robustlab.engine.loop import fit
from robustlab.engine.record import reproducibility_record
from robustlab.engine.runtime import Runtime
from robustlab.engine.selection import rules_for
from robustlab.engine.session import Session, Settings, restore
from robustlab.engine.signals import StopFlag
from robustlab.errors import EXIT_PREEMPTED, ConfigError
from robustlab.tracking.base import Trackers
from robustlab.tracking.console import make_console, say, shell_line, warn
from robustlab.tracking.groups import group_record, print_group_table
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
    outcome = run_one(cfg, overrides, group=group)
    if outcome.results is None:
        return outcome.exit_code
    baseline, was_finished = None, outcome.was_finished
    if cfg.compare and compose_again is not None and cfg.compare != cfg.method.name:
        other = compose_again(baseline_overrides(overrides, cfg.compare))
        say(f"Now {cfg.compare} with the same settings, to compare with (compare=null leaves it out)")
        beside = run_one(other, overrides, group=group)
        if beside.results is None:
            return beside.exit_code
        baseline = beside.results
        was_finished = was_finished and beside.was_finished
    if group is not None and was_finished:
        return 0  # of what a sweep finds finished, its own line is enough
    if os.environ.get("RANK", "0") == "0":
        command = shell_line(["train", *flags, *overrides])
        print_summary(outcome.results, baseline, run_dir=outcome.folder, command=command)
    return 0


def baseline_overrides(overrides: list[str], method: str) -> list[str]:
    """Return the overrides of the same settings with another method: those of the method itself fall away."""
    kept = [text for text in overrides if not text.lstrip("+~").startswith(("method=", "method.", "compare="))]
    return [*kept, f"method={method}", "compare=null"]


def run_one(cfg: DictConfig, overrides: list[str], *, group: str | None = None) -> Outcome:
    """Run, resume, or find finished one configuration. Raises UserError; a signal gives exit code 85."""
    folder = Path(cfg.paths.run_dir).expanduser()
    runtime = Runtime.from_config(cfg.trainer)
    finished = read_results(folder) if cfg.resume else None
    if finished is not None:
        say(f"{cfg.method.name}, seed {cfg.seed}: already finished in {folder} (resume=false starts anew)")
        return Outcome(finished, folder, 0, was_finished=True)
    if runtime.is_main:
        prepare_folder(folder, resume=cfg.resume)
    runtime.barrier()
    with StopFlag() as stop:
        if not runtime.is_main:
            return _train(cfg, overrides, folder, runtime, stop, group)
        with locked(folder):
            return _train(cfg, overrides, folder, runtime, stop, group)


def _train(
    cfg: DictConfig, overrides: list[str], folder: Path, runtime: Runtime, stop: StopFlag, group: str | None
) -> Outcome:
    identity = {"run_name": run_name(cfg), "seed": cfg.seed}
    checkpoints = Checkpoints(folder / "checkpoints")
    if not runtime.is_main:
        runtime.barrier()  # reading moves damaged files aside: rank 0 comes first
    state, warnings = checkpoints.load()
    if runtime.is_main:
        runtime.barrier()
    for warning in warnings:
        warn(warning)
    if state is not None and state["identity"] != identity:
        raise ConfigError(
            f"{folder} holds a run with other settings ({state['identity']['run_name']}, seed "
            f"{state['identity']['seed']}, not {identity['run_name']}, seed {cfg.seed}); choose another paths.run_dir, "
            "or start anew with resume=false"
        )
    data = build_data(cfg, runtime)
    groups = group_record(data)
    if groups is not None and state is None and runtime.is_main:
        print_group_table(groups, make_console(sys.stderr))
    method, settings = build_method(cfg, data, runtime), _settings(cfg, data)
    resolved = _resolved(cfg)
    if runtime.is_main:
        _write_descriptions(folder, cfg, resolved, overrides, data)
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
                settings=settings,
                stop=stop,
                identity=identity,
            )
            if state is not None:
                restore(session, state)
                say(f"resuming in {folder} at epoch {session.cursor.epoch}, step {session.cursor.step}")
            signal = fit(session)
        if signal is not None:
            exit_code = EXIT_PREEMPTED
            step = session.cursor.global_step
            say(f"stopped by {signal} after step {step}, saved; the same command goes on from there")
            return Outcome(None, folder, exit_code)
        results = _results(cfg, session, identity["run_name"], group)
        results |= {} if groups is None else {"groups": groups}
        trackers.summary({f"{rule}/{name}": v for rule, row in results["selection"].items() for name, v in row.items()})
        if runtime.is_main:
            for picture, path in method.finish(folder).items():
                trackers.image(picture, path, step=session.cursor.global_step)
            write_json(folder / "results.json", results)
        exit_code = 0
        return Outcome(results, folder, exit_code)
    finally:
        trackers.finish(exit_code)


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


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    resolved.pop("hydra", None)
    return {str(key): value for key, value in resolved.items()}


def _write_descriptions(
    folder: Path, cfg: DictConfig, resolved: Mapping[str, Any], overrides: list[str], data: Data
) -> None:
    """Write what the run is: resolved config, overrides, versions and hardware, and the labels it trains on."""
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(resolved))))
    write_text(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
    write_json(folder / "task.json", asdict(data.task))  # what a network must be told to be built again
    record = folder / "record.json"  # one entry per start: a requeued job may run on another machine or commit
    mend = "delete it to go on without the record of earlier starts"
    starts = read_json(record, needed=("starts",), mend=mend)["starts"] if record.exists() else []
    write_json(record, {"starts": [*starts, reproducibility_record(config=resolved, overrides=overrides)]})
    labels = folder / "labels.npz"
    if labels.exists():
        data.check_saved_labels(labels)
    else:
        data.save_labels(labels)


def _results(cfg: DictConfig, session: Session, name: str, group: str | None) -> dict[str, Any]:
    networks = session.method.learners.values()
    derived = list(session.data.derived_metrics(session.final))
    return {
        "finished": True,
        "run_name": name,
        "name": cfg.name,
        "method": cfg.method.name,
        "dataset": cfg.dataset.name,
        "model": cfg.model.name,
        "noise": session.data.noise_record(),
        "seed": cfg.seed,
        "epochs": _epochs(session),
        "steps": session.cursor.global_step,
        "parameters": sum(p.numel() for learner in networks for p in learner.network.parameters()),
        "seconds": round(session.cursor.seconds, 3),
        "selection": session.selection.results(),
        "final": session.final,
        **({"derived": derived} if derived else {}),
        "group": group,
        "tags": list(cfg.tags),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
