"""From overrides to runs: one, or a sweep all of whose points are composed and checked before the first one starts."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.config.check import inspect, refuse
from robustlab.config.compose import CONFIG_NAME, compose_again, load, search_flags, without_hydra
from robustlab.config.points import Sweep, hydra_problems, read_sweep
from robustlab.config.resolvers import sweep_group
from robustlab.config.rules import refuse_unwritable
from robustlab.config.stop_signals import hold_back
from robustlab.errors import EXIT_PREEMPTED, ConfigError, UserError
from robustlab.invocation import SWEEP_VARIABLE

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

SLURM_LAUNCHER = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
"""The `_target_` by which `hydra.launcher` names SLURM: that of Hydra's submitit plugin, whose keys are understood."""


def launch(hydra: Hydra, overrides: list[str], *, config_name: str, multirun: bool) -> int:
    """Do what the overrides ask for; return the exit code, of a sweep the largest of its points'.

    Raises `ConfigError` and `RunFolderError` before anything is run or written, and Hydra's exceptions where overrides
    do not compose.
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
    refuse_unwritable(settings)
    return _run_here(hydra, cfg)


def _run_here(hydra: Hydra, cfg: DictConfig) -> int:
    """Run one composed configuration as `Hydra.run` does, which would compose it a second time."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import run_job
    from hydra.types import HydraContext

    callbacks, name = Callbacks(cfg), cfg.hydra.job.config_name
    callbacks.on_run_start(config=cfg, config_name=name)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    job = run_job(run_point, cfg, "hydra.run.dir", None, context)
    callbacks.on_run_end(config=cfg, config_name=name, job_return=job)
    if isinstance(job._return_value, BaseException):  # `return_value` would print a line of its own
        raise job._return_value
    return int(job._return_value)


def _sweep(hydra: Hydra, overrides: Sequence[str], config_name: str) -> int:
    sweep = read_sweep(hydra, overrides, config_name)
    if sweep.master.hydra.launcher.get("_target_") == SLURM_LAUNCHER:
        return _on_slurm(hydra, sweep, config_name)
    if sweep.points is not None:
        named = [set(point.overrides) for point in sweep.points]
        _Sweep.total = len(named)
        _Sweep.common = set.intersection(*named) if len(named) > 1 else set()
    _Sweep.codes = []
    try:
        everything = [*(text for text in overrides if text != "hydra.mode=MULTIRUN"), "hydra.mode=MULTIRUN"]
        hydra.multirun(config_name=config_name, task_function=run_point, overrides=everything)
        return max(_Sweep.codes, default=0)
    finally:
        _Sweep.total, _Sweep.common = None, set()


def _on_slurm(hydra: Hydra, sweep: Sweep, config_name: str) -> int:
    """Submit a checked sweep and wait for its end; the jobs do not depend on this process."""
    if config_name != CONFIG_NAME:
        raise ConfigError(f"--config-name: runs on a cluster take {CONFIG_NAME}.yaml; add options with --config-dir")
    from robustlab.launch.follow import submit_and_wait

    return submit_and_wait(hydra, sweep)


class _Sweep:
    """What the points of a sweep that run in this process know of each other."""

    total: int | None = None
    common: set[str] = set()  # noqa: RUF012 overrides that all points share
    codes: list[int] = []  # noqa: RUF012 replaced for each sweep


def run_point(cfg: DictConfig) -> int:
    """Run one composed configuration and return its exit code. Hydra calls it, here or on another machine.

    In a sweep an error is printed and becomes the exit code, so that the other points go on; after a signal the points
    that have not started are left for the next time.
    """
    from hydra.core.hydra_config import HydraConfig

    group = sweep_group()
    overrides = list(HydraConfig.get().overrides.task)
    if group is None:
        return _engine_run(cfg, overrides, os.environ.get(SWEEP_VARIABLE))
    number = int(HydraConfig.get().job.num) + 1
    label = f"[{number}/{_Sweep.total or '?'}] {' '.join(text for text in overrides if text not in _Sweep.common)}"
    if EXIT_PREEMPTED in _Sweep.codes:
        print(f"{label}: not started, the sweep was stopped", flush=True)
        return EXIT_PREEMPTED
    was_finished, started = _is_finished(cfg), time.perf_counter()
    try:
        code = _engine_run(cfg, overrides, group)
    except UserError as error:
        print(f"train: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except Exception:
        # A bug in one point must not stop the others; it is shown whole, and the sweep ends with an error.
        traceback.print_exc()
        code = 1
    _Sweep.codes.append(code)
    how = {0: "finished before" if was_finished else "finished", EXIT_PREEMPTED: "stopped, resumable"}
    seconds = time.perf_counter() - started
    print(f"{label}: {how.get(code, f'failed (exit code {code})')} in {seconds:.0f} s, {cfg.paths.run_dir}", flush=True)
    return code


def _engine_run(cfg: DictConfig, overrides: list[str], group: str | None) -> int:
    hold_back()  # importing torch takes seconds, in which a signal would kill without a word
    from robustlab.engine.run import run

    return run(cfg, overrides, group=group, compose_again=compose_again, flags=search_flags())


def _is_finished(cfg: DictConfig) -> bool:
    path = Path(cfg.paths.run_dir).expanduser() / "results.json"
    try:
        return bool(cfg.resume and json.loads(path.read_text(encoding="utf-8")).get("finished"))
    except (OSError, ValueError):
        return False
