"""From overrides to runs: one, or a sweep all of whose points are composed and checked before the first one starts."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.config.check import problems, refuse
from robustlab.config.compose import compose_again, expand, load, search_flags, without_hydra
from robustlab.config.explain import empty_sweeps, explain, no_options
from robustlab.config.resolvers import sweep_group
from robustlab.config.stop_signals import hold_back
from robustlab.errors import EXIT_PREEMPTED, UserError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig


def launch(hydra: Hydra, overrides: list[str], *, config_name: str, multirun: bool) -> int:
    """Do what the overrides ask for; return the exit code, of a sweep the largest of its points'.

    Raises `ConfigError` before anything is run or written, and Hydra's exceptions where overrides do not compose.
    """
    from hydra.types import RunMode

    if multirun or "hydra.mode=MULTIRUN" in overrides:
        return _sweep(hydra, overrides, config_name)
    cfg = load(hydra, overrides, config_name=config_name)
    if cfg.hydra.mode == RunMode.MULTIRUN:
        return _sweep(hydra, overrides, config_name)
    cfg.hydra.mode = RunMode.RUN
    refuse(_problems(cfg))
    return _run_here(hydra, cfg)


def _problems(cfg: DictConfig) -> list[str]:
    from omegaconf import OmegaConf

    settings = {"run.dir": ".", "sweep.subdir": ".", "output_subdir": None, "job.chdir": False}
    ours = [
        f"hydra.{key} is not used: the run folder follows from the settings; choose where runs go with "
        "paths.output_dir=<folder>, or name one run's folder below it with paths.run_dir=<folder>"
        for key, expected in settings.items()
        if OmegaConf.select(cfg.hydra, key) != expected
    ]
    return [*ours, *problems(without_hydra(cfg))]


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
    from hydra.errors import HydraException
    from hydra.types import RunMode

    overrides = [text for text in overrides if text != "hydra.mode=MULTIRUN"] + ["hydra.mode=MULTIRUN"]
    try:
        master = load(hydra, overrides, RunMode.MULTIRUN, config_name=config_name)
        sweeper = master.hydra.sweeper
        is_basic = sweeper._target_.endswith(".BasicSweeper")
        params = [f"{key}={value}" for key, value in ((sweeper.get("params") or {}) if is_basic else {}).items()]
    except HydraException:
        is_basic, params = True, []  # some key or option is wrong: composing the points will say which
    if is_basic:
        try:
            named = [*params, *(text for text in overrides if not _is_hydra(text))]
            points = expand(named)
            refuse([] if points else empty_sweeps(hydra, named))
        except HydraException as error:
            refuse(explain(hydra, overrides, error, sweep=True))
            raise
        _check_points(hydra, points, [text for text in overrides if _is_hydra(text)], config_name)
        _Sweep.total = len(points)
        _Sweep.common = set.intersection(*map(set, points)) if len(points) > 1 else set()
    _Sweep.codes = []
    try:
        hydra.multirun(config_name=config_name, task_function=run_point, overrides=list(overrides))
        return max(_Sweep.codes, default=0)
    finally:
        _Sweep.total, _Sweep.common = None, set()


def _is_hydra(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _check_points(
    hydra: Hydra, points: Sequence[Sequence[str]], hydra_overrides: Sequence[str], config_name: str
) -> None:
    from hydra.errors import HydraException

    found: dict[str, str] = {}
    for point in points:
        try:
            messages = no_options(hydra, point)
            messages = messages or _problems(load(hydra, [*hydra_overrides, *point], config_name=config_name))
        except HydraException as error:
            messages = explain(hydra, point, error)
        for message in messages:
            found.setdefault(message, " ".join(point))
    refuse([f"{message} (in the point {point})" for message, point in found.items()])


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
        return _engine_run(cfg, overrides, None)
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
