"""Start one run, or a sweep whose points are all composed and checked before the first one starts."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlab.config.baseline import has_baseline
from robustlab.config.check import check, inspect, refuse
from robustlab.config.compose import compose_again, import_from_here, search_flags
from robustlab.config.hydra_messages import one_line
from robustlab.config.hydra_session import CONFIG_NAME, load, without_hydra
from robustlab.config.metric import measured, metric_to_optimize, selects_on_test
from robustlab.config.occupant import is_done
from robustlab.config.rules import refuse_unwritable
from robustlab.config.run_names import sweep_group
from robustlab.core.errors import EXIT_PREEMPTED, ConfigError, UserError
from robustlab.core.invocation import SWEEP_VARIABLE
from robustlab.core.stop_signals import hold_back
from robustlab.sweeps.claimed_folders import Folders
from robustlab.sweeps.composer import hydra_problems
from robustlab.sweeps.outcomes import PointOutcome, SweepStoppedError, Tally, watched_launchers
from robustlab.sweeps.points import Sweep, check_ahead, read_sweep

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig


def launch(hydra: Hydra, overrides: list[str], *, config_name: str, multirun: bool) -> int:
    """Run what the overrides ask for and return the exit code (for a sweep, the largest of its points).

    Raises `ConfigError` and `RunFolderError` before anything is run or written, and Hydra's exceptions if the
    overrides do not compose.
    """
    from hydra.types import RunMode

    if multirun or "hydra.mode=MULTIRUN" in overrides:
        return _sweep(hydra, overrides, config_name)
    cfg = load(hydra, overrides, config_name=config_name)
    if cfg.hydra.mode == RunMode.MULTIRUN:
        return _sweep(hydra, overrides, config_name)
    cfg.hydra.mode = RunMode.RUN
    settings, messages = inspect(without_hydra(cfg))
    refuse([*hydra_problems(cfg), *messages])
    _refuse_folders(hydra, cfg, settings, config_name)
    refuse_unwritable(settings)
    return _run_here(hydra, cfg)


def _refuse_folders(hydra: Hydra, cfg: DictConfig, settings: Mapping[str, Any], config_name: str) -> None:
    """Raise ConfigError if a run or its baseline may not use its folder, or the baseline does not check out."""
    own, overrides = _as_written(cfg.hydra.overrides.hydra), _as_written(cfg.hydra.overrides.task)
    folders = Folders()

    def compose(other: list[str]) -> DictConfig:
        return without_hydra(load(hydra, [*own, *other], config_name=config_name))

    run = without_hydra(cfg)
    refuse(folders.problems(run, settings, overrides))
    refuse(folders.baseline(compose, run, overrides)[1] if has_baseline(run) else [])


def _run_here(hydra: Hydra, cfg: DictConfig) -> int:
    """Run one composed configuration like `Hydra.run`, which would compose it a second time."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import run_job
    from hydra.types import HydraContext

    callbacks, name = Callbacks(cfg), cfg.hydra.job.config_name
    callbacks.on_run_start(config=cfg, config_name=name)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    job = run_job(run_point, cfg, "hydra.run.dir", None, context)
    callbacks.on_run_end(config=cfg, config_name=name, job_return=job)
    if isinstance(job._return_value, BaseException):  # reading `return_value` would print an extra line
        raise job._return_value
    return int(job._return_value)


def _sweep(hydra: Hydra, overrides: Sequence[str], config_name: str) -> int:
    from robustlab.core.console import warn

    sweep = read_sweep(hydra, overrides, config_name)
    if sweep.is_for_slurm:
        return _on_slurm(hydra, sweep, config_name)
    tally = Tally(metric=sweep.metric)
    with ExitStack() as scope:
        if sweep.points is not None:
            named = [set(point.overrides) for point in sweep.points]
            tally = Tally(len(named), set.intersection(*named) if len(named) > 1 else set())
            if not all(point.is_done for point in sweep.points):
                import_from_here()
                hold_back()  # as before a run, since this imports torch
                from robustlab.engine.read_data import shared_data

                if sweep.is_for_here:  # otherwise the points run in other processes, which cannot use data read here
                    scope.enter_context(shared_data())
                check_ahead(sweep.points, read_data=True)
        if sweep.metric is not None and selects_on_test(sweep.metric):
            name = sweep.metric.name
            warn(f"optimized_metric.name={name} selects on test data, so the selected result is optimistically biased")
        with _here(tally):
            _multirun(hydra, sweep.master, config_name, tally)
    _show_table([outcome.run_dir for outcome in tally.outcomes.values() if outcome.run_dir])
    return tally.conclude()


def _show_table(run_dirs: Sequence[str]) -> None:
    from robustlab.report.sweep_table import end_with_table

    end_with_table([Path(folder).expanduser() for folder in run_dirs])


def _multirun(hydra: Hydra, cfg: DictConfig, config_name: str, tally: Tally) -> None:
    """Do what `Hydra.multirun` does, with a launcher whose jobs are tallied.

    Raises ConfigError before anything is written if the sweeper or launcher cannot be made, and later if the sweeper
    fails although no point did.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException
    from hydra.types import HydraContext
    from omegaconf.errors import OmegaConfBaseException

    callbacks = Callbacks(cfg)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    with watched_launchers(tally):
        try:
            sweeper = Plugins.instance().instantiate_sweeper(config=cfg, hydra_context=context, task_function=run_point)
        except Exception as error:  # any exception of a plugin means that its settings are wrong
            raise ConfigError(f"hydra.sweeper or hydra.launcher: {one_line(error.__cause__ or error)}") from error
    callbacks.on_multirun_start(config=cfg, config_name=config_name)
    try:
        sweeper.sweep(arguments=_as_written(cfg.hydra.overrides.task))
    except SweepStoppedError:
        return
    except (UserError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        if not tally.failed:  # otherwise it follows from a failed point, and those are listed
            raise ConfigError(f"{cfg.hydra.sweeper._target_.rpartition('.')[2]}: {one_line(error)}") from error
    callbacks.on_multirun_end(config=cfg, config_name=config_name)


def _on_slurm(hydra: Hydra, sweep: Sweep, config_name: str) -> int:
    """Submit a checked sweep and wait for it to end; the jobs do not depend on this process."""
    if config_name != CONFIG_NAME:
        raise ConfigError(f"--config-name: cluster runs always use {CONFIG_NAME}.yaml; add options with --config-dir")
    from robustlab.launch.follow import submit_and_wait

    return submit_and_wait(hydra, sweep)


_tally: ContextVar[tuple[int, Tally] | None] = ContextVar("_tally", default=None)
"""The sweep whose points run here, and the process that started it: a forked process keeps a separate tally."""


@contextmanager
def _here(tally: Tally) -> Iterator[None]:
    token = _tally.set((os.getpid(), tally))
    try:
        yield
    finally:
        _tally.reset(token)


def run_point(cfg: DictConfig) -> int | PointOutcome:
    """Run one composed configuration and return its exit code; called by Hydra, on this machine or another.

    In a sweep an error becomes part of the returned outcome, so that the other points still run; after a signal, points
    that have not started are left for the next launch.
    """
    from hydra.core.hydra_config import HydraConfig

    group = sweep_group()
    overrides = _as_written(HydraConfig.get().overrides.task)
    if group is None:
        own = os.environ.get(SWEEP_VARIABLE)
        return _engine()(cfg, overrides, group=own, compose_again=compose_again, flags=search_flags())
    number, here = int(HydraConfig.get().job.num), _tally.get()
    tally = here[1] if here is not None and here[0] == os.getpid() else None
    if tally is not None and EXIT_PREEMPTED in (outcome.code for outcome in tally.outcomes.values()):
        tally.skip(number, overrides)
        return tally.outcomes[number]
    outcome = _outcome(cfg, overrides, group)
    if tally is not None:
        tally.add(number, overrides, outcome)
    return outcome


def _outcome(cfg: DictConfig, overrides: list[str], group: str) -> PointOutcome:
    """Run a point of a sweep and return its outcome, even if it fails."""
    from hydra.core.hydra_config import HydraConfig

    run_dir, started, value, message = "", time.perf_counter(), None, ""
    was_finished = False
    try:
        metric = metric_to_optimize(HydraConfig.get().sweeper, cfg)
        if metric is not None:
            check(cfg)  # a search has only just chosen the point
        run_dir, was_finished = str(cfg.paths.run_dir), is_done(cfg)
        code = _engine()(cfg, overrides, group=group, compose_again=compose_again, flags=search_flags())
        if code == 0 and metric is not None:
            value = measured(cfg, metric)
    except UserError as error:
        code, message = error.exit_code, f"train: {error}"
    except Exception:
        code, message = 1, traceback.format_exc()  # a bug in one point must not stop the others; show it in full
    return PointOutcome(code, run_dir, time.perf_counter() - started, was_finished, message, value)


def _engine() -> Callable[..., int]:
    """Return what runs a configuration; imports torch, which takes seconds."""
    import_from_here()
    hold_back()  # otherwise a signal during the import would kill the run silently
    from robustlab.engine.run import run

    return run


def _as_written(overrides: Any) -> list[str]:
    """Return the overrides of a composed configuration, references unresolved, since those differ between points."""
    from omegaconf import OmegaConf

    return [str(text) for text in OmegaConf.to_container(overrides, resolve=False)]  # type: ignore[union-attr]
