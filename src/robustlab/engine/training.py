"""Train a built run, from its checkpoint or from the start, to its results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robustlab.config.occupant import EPOCHS, HISTORY, plain
from robustlab.config.overlays import value_notes
from robustlab.core.console import make_console, say, warn
from robustlab.core.errors import EXIT_PREEMPTED, PeerError
from robustlab.core.files import write_json
from robustlab.core.invocation import same_command
from robustlab.core.runtime import Runtime
from robustlab.engine.built import Around, Built
from robustlab.engine.checkpoint import Checkpoints
from robustlab.engine.describe import describe
from robustlab.engine.extension import refuse_extension
from robustlab.engine.loop import fit
from robustlab.engine.origin import Origin, find_origin, set_out
from robustlab.engine.run_folder import set_results_aside
from robustlab.engine.run_results import Outcome, results_of
from robustlab.engine.session import Session, check_space
from robustlab.tracking.group_summary import group_record, print_group_table
from robustlab.tracking.progress import Progress
from robustlab.tracking.trackers import Trackers, selection_summary


def train(cfg: DictConfig, overrides: list[str], folder: Path, around: Around, built: Built) -> Outcome:
    """Train to the end, or until a signal; this process must hold the run folder's lock. Raises UserError."""
    runtime, checkpoints = around.runtime, Checkpoints(folder / "checkpoints")
    origin = find_origin(cfg, runtime, folder, checkpoints)
    groups = _announce(cfg, origin, runtime, built)
    if runtime.is_main:
        _describe(cfg, overrides, folder, origin, built)
    trackers = _trackers(cfg, folder, origin, around)
    exit_code = 1
    try:
        stages = {stage.name: stage.epochs for stage in built.method.stages()}
        with Progress(
            cfg.tracker.progress, total_epochs=sum(stages.values()), stages=stages, is_main=runtime.is_main
        ) as progress:
            session = Session(
                method=built.method,
                data=built.data,
                runtime=runtime,
                trackers=trackers,
                progress=progress,
                checkpoints=checkpoints,
                settings=built.settings,
                stop=around.stop,
                identity=origin.identity,
                diagnostics=built.diagnostics,
            )
            check_space(session)
            set_out(session, origin, seed=cfg.seed, folder=folder)
            signal = fit(session)
        if signal is not None:
            exit_code = EXIT_PREEMPTED
            step = session.cursor.global_step
            same = same_command(cfg.resume)
            say(f"stopped by {signal} after step {step}, saved; {same} resumes from there")
            return Outcome(None, folder, exit_code)
        results = results_of(session, cfg, group=around.group, groups=groups)
        _publish(results, session, folder)
        exit_code = 0
        return Outcome(results, folder, exit_code)
    finally:
        trackers.finish(exit_code)


def _announce(cfg: DictConfig, origin: Origin, runtime: Runtime, built: Built) -> dict[str, Any] | None:
    """Print notes about this start, make the last checks, and return the record of groups."""
    for warning in origin.warnings:
        warn(warning)
    for note in value_notes(cfg):
        say(note)
    _refuse_differences(
        runtime,
        {
            "settings": [origin.identity["run_name"], origin.identity["seed"]],
            "checkpoint": None if origin.state is None else origin.state["cursor"]["global_step"],
            "training labels": built.data.noise_record()["hash"],
        },
    )
    if origin.is_extended:
        refuse_extension(built.method, origin.saved, name=cfg.method.name, steps=cfg.trainer.max_steps)
    groups = group_record(built.data)
    if groups is not None and origin.state is None and runtime.is_main:
        print_group_table(groups, make_console(sys.stderr))
    return groups


def _refuse_differences(runtime: Runtime, facts: Mapping[str, Any]) -> None:
    """Raise PeerError if the processes of a run would silently diverge."""
    first, *others = runtime.gather(dict(facts))
    for rank, other in enumerate(others, 1):
        names = [name for name in first if other[name] != first[name]]
        if names:
            raise PeerError(
                f"process {rank} differs from process 0 in {', '.join(names)}; start all processes with one command, "
                "with paths.output_dir on a file system that all nodes share and the same data on each"
            )


def _describe(cfg: DictConfig, overrides: list[str], folder: Path, origin: Origin, built: Built) -> None:
    if origin.is_extended:
        set_results_aside(folder, epochs=origin.saved["settings"][EPOCHS])
    describe(
        folder,
        config=plain(cfg),
        overrides=overrides,
        data=built.data,
        identity=origin.identity,
        warnings=origin.warnings,
    )


def _trackers(cfg: DictConfig, folder: Path, origin: Origin, around: Around) -> Trackers:
    return Trackers.from_config(
        cfg.tracker,
        run_dir=folder,
        run_name=f"{origin.identity['run_name']}-seed{cfg.seed}",
        config={**plain(cfg), **{key: origin.identity[key] for key in HISTORY if key in origin.identity}},
        tags=list(cfg.tags),
        group=around.group,
        resume_state=origin.state["trackers"] if origin.state else None,
        is_main=around.runtime.is_main,
    )


def _publish(results: dict[str, Any], session: Session, folder: Path) -> None:
    """Send the results to the trackers and finally write results.json, which marks the run as finished."""
    session.trackers.summary(selection_summary(results))
    if session.runtime.is_main:
        for picture, path in session.method.finish(folder).items():
            session.trackers.image(picture, path, step=session.cursor.global_step)
        write_json(folder / "results.json", results)
