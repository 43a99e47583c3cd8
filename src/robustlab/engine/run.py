"""Run a checked configuration: claim its folder, skip it if finished, and run the baseline that `compare` names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from robustlab.config.baseline import compose_baseline, has_baseline
from robustlab.config.occupant import is_done, plain, refusal
from robustlab.core.console import say
from robustlab.core.errors import EXIT_PREEMPTED, ConfigError
from robustlab.core.files import made
from robustlab.core.runtime import Runtime
from robustlab.core.signals import StopFlag, StoppedEarly
from robustlab.core.world import World
from robustlab.engine.built import Around, build_run
from robustlab.engine.ending import errors_recorded, record_ending
from robustlab.engine.failures import explained
from robustlab.engine.lock import Holder, last_holder, locked
from robustlab.engine.preflight import CPU, check_beside
from robustlab.engine.read_data import shared_data
from robustlab.engine.run_folder import prepare_folder, refuse_detour
from robustlab.engine.run_results import Outcome
from robustlab.engine.training import train
from robustlab.tracking.finished_run import read_results
from robustlab.tracking.summary import print_summary


def run(
    cfg: DictConfig,
    overrides: list[str],
    *,
    group: str | None = None,
    compose_again: Callable[[list[str]], DictConfig] | None = None,
    flags: Sequence[str] = (),
) -> int:
    """Run a checked configuration and return the exit code.

    - overrides: overrides on the command line, for the record.
    - group: the sweep that this run is a point of.
    - compose_again: composes other overrides on the same search path; if given, the method named by `compare` is run as
      well and shown in the summary.
    - flags: flags of the command line, for the commands that the summary suggests.
    """
    beside = None
    if compose_again is not None and has_baseline(cfg):
        beside = compose_baseline(compose_again, cfg, overrides)
        _refuse_occupied(beside[0])
        check_beside(beside[0], cfg, None, CPU)
    compared = None
    with shared_data():
        outcome = run_one(cfg, overrides, group=group, beside=beside and beside[0])
        if outcome.results is not None and beside is not None:
            say(compared_line(cfg, beside[0]))
            compared = run_one(*beside, group=group, is_checked=True)
    last = compared or outcome
    if outcome.results is None or last.results is None:
        return last.exit_code
    if group is not None and outcome.was_finished and last.was_finished:
        return 0  # if a sweep finds a run finished, its one line is enough
    if World.from_environment().is_main:
        baseline = None if compared is None else compared.results
        print_summary(outcome.results, baseline, run_dir=outcome.folder, arguments=[*flags, *overrides])
    return 0


def compared_line(cfg: DictConfig, other: DictConfig) -> str:
    """Return the line announcing the baseline run.

    An overlay may give the two methods different epochs, optimizers or schedules in one setting.

    - other: configuration of the baseline.
    """
    one, two = plain(cfg), plain(other)
    same = all(one[group] == two[group] for group in ("trainer", "optimizer", "scheduler"))
    differs = "" if same else ", except for its own training settings"
    return f"Now running {cfg.compare} with the same settings{differs}, for comparison (compare=null turns this off)"


def run_one(
    cfg: DictConfig,
    overrides: list[str],
    *,
    group: str | None = None,
    beside: DictConfig | None = None,
    is_checked: bool = False,
) -> Outcome:
    """Run or resume one configuration, or find it finished. Raises UserError; after a signal the exit code is 85.

    - beside: configuration that runs next on the same data, checked before this one's first step.
    - is_checked: whether `check_parts` has already accepted this one.
    """
    folder = Path(cfg.paths.run_dir).expanduser()
    cfg = _of_restarted_job(cfg, folder)
    with errors_recorded(folder), StopFlag() as stop, explained(cfg, folder), contextlib.ExitStack() as held:
        runtime = Runtime.from_config(cfg.trainer)
        held.enter_context(runtime.watching_peers())
        around = Around(runtime, stop, group, beside, is_checked)
        outcome = _found_finished(cfg, folder, runtime)
        if outcome is None:
            is_there = bool(cfg.resume) and folder.is_dir()
            if is_there:
                _claim(cfg, folder, runtime, held)
            try:
                built = build_run(cfg, around)
                if not is_there:  # a refused command leaves nothing, and leaves a run to be replaced
                    _claim(cfg, folder, runtime, held)
                runtime.barrier()
                by_another = (
                    _finished(cfg, folder) if runtime.world_size == 1 else None
                )  # another process may have just finished it
                outcome = by_another or train(cfg, overrides, folder, around, built)
            except StoppedEarly:
                again = "run the same command to start or resume training"
                say(f"stopped by {stop.name} before the first step; {again}")
                outcome = Outcome(None, folder, EXIT_PREEMPTED)
    if outcome.exit_code and folder.is_dir():  # a run stopped while reading its data has no folder
        record_ending(folder, outcome.exit_code, str(stop.name), f"stopped by {stop.name}")
    return outcome


def _of_restarted_job(cfg: DictConfig, folder: Path) -> DictConfig:
    """Make a requeued SLURM job with `resume=false` resume what its first start began."""
    me = Holder.this_process()
    is_restart = me.job is not None and me.restarts != "0"
    if cfg.resume or not is_restart or not (last_holder(folder) or "").endswith(f", SLURM job {me.job}"):
        return cfg
    cfg = cfg.copy()
    cfg.resume = True
    return cfg


def _found_finished(cfg: DictConfig, folder: Path, runtime: Runtime) -> Outcome | None:
    """Return the outcome of a finished run, as found by rank 0, since other ranks may see other files.

    Raises ConfigError if another run has the folder, or a symbolic link leads out of the output folder.
    """
    if runtime.is_main:
        _refuse_occupied(cfg)
        refuse_detour(folder, Path(cfg.paths.output_dir).expanduser())
    return runtime.gather(_finished(cfg, folder) if runtime.is_main else None)[0]


def _claim(cfg: DictConfig, folder: Path, runtime: Runtime, held: contextlib.ExitStack) -> None:
    """Make the folder this process's own until `held` ends. Raises RunFolderError."""
    if runtime.is_main:
        held.enter_context(made(folder))
        prepare_folder(folder, resume=bool(cfg.resume), output_dir=Path(cfg.paths.output_dir).expanduser())
        held.enter_context(locked(folder))


def _refuse_occupied(cfg: DictConfig) -> None:
    """Raise ConfigError if the folder belongs to another run."""
    message = refusal(Path(cfg.paths.run_dir).expanduser(), cfg)
    if message is not None:
        raise ConfigError(message)


def _finished(cfg: DictConfig, folder: Path) -> Outcome | None:
    """Return the outcome of a run that is already finished, unless it is to be restarted or extended."""
    results = read_results(folder) if cfg.resume else None
    if results is None or not is_done(cfg):
        return None
    say(f"{cfg.method.name}, seed {cfg.seed}: already finished in {folder} (resume=false starts over)")
    return Outcome(results, folder, 0, was_finished=True)
