"""Expand a sweep into points, and compose and check each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from robustlab.config.baseline import has_baseline
from robustlab.config.check import inspect, refuse
from robustlab.config.compose import expand
from robustlab.config.explain import empty_sweeps, explain, intervals, no_options
from robustlab.config.hydra_session import CONFIG_NAME, load
from robustlab.config.metric import Metric, metric_to_optimize, searches
from robustlab.config.occupant import is_done
from robustlab.config.rules import refuse_unwritable
from robustlab.config.wording import show
from robustlab.sweeps.claimed_folders import Folders
from robustlab.sweeps.composer import Composer

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""The `_target_` of Hydra's own launcher."""

SLURM_LAUNCHER = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
"""The `_target_` that stands for SLURM in `hydra.launcher`: Hydra's submitit plugin, whose keys are honoured."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its overrides, without Hydra's own, and its plain, resolved, checked settings.

    - baseline: settings of the run that `compare` names, if that is also run.
    - is_done: whether the folder already holds the results.
    """

    overrides: list[str]
    settings: Mapping[str, Any]
    baseline: Mapping[str, Any] | None = None
    is_done: bool = False

    @property
    def run_dir(self) -> str:
        """The run's folder, as written in the settings."""
        return str(self.settings["paths"]["run_dir"])


@dataclass(frozen=True)
class Sweep:
    """A command line with `-m`.

    - master: the composed configuration including the node `hydra`; each swept key holds its list of values as text.
    - points: None if a sweeper other than Hydra's own chooses them, judging by `metric`.
    - hydra_overrides: overrides of Hydra itself.
    """

    master: DictConfig
    points: list[Point] | None
    hydra_overrides: list[str]
    metric: Metric | None = None

    @property
    def is_for_here(self) -> bool:
        """Whether its points run in this process, one after the other."""
        return self.master.hydra.launcher.get("_target_") == BASIC_LAUNCHER

    @property
    def is_for_slurm(self) -> bool:
        """Whether its points run in jobs on a cluster."""
        return self.master.hydra.launcher.get("_target_") == SLURM_LAUNCHER


def read_sweep(
    hydra: Hydra,
    overrides: Sequence[str],
    config_name: str = CONFIG_NAME,
    *,
    points: Sequence[Sequence[str]] | None = None,
) -> Sweep:
    """Expand a sweep, compose and check each of its points.

    - points: overrides of each point, if the sweep is already expanded.

    Raises one `ConfigError` with all problems, or Hydra's exceptions if nothing can be composed.
    """
    from hydra.errors import HydraException
    from hydra.types import RunMode

    task, own = ([text for text in overrides if is_hydra(text) == about_hydra] for about_hydra in (False, True))
    own = [*(text for text in own if text != "hydra.mode=MULTIRUN"), "hydra.mode=MULTIRUN"]
    try:
        master = load(hydra, [*task, *own], RunMode.MULTIRUN, config_name=config_name)
    except HydraException:  # a key or option is wrong: composing the points says which, except for the sweep's own
        checked(hydra, representatives(hydra, task), own, config_name)
        raise
    refuse(_plugin_problems(master))
    sweeper = master.hydra.sweeper
    if searches(sweeper):
        checked(hydra, representatives(hydra, [*_searched(sweeper), *task]), own, config_name)
        return Sweep(master, None, own, metric_to_optimize(sweeper, master))
    named = expand_sweep(hydra, task, sweeper.get("params") or {}) if points is None else points
    sweep = Sweep(master, None, own)
    return replace(sweep, points=checked(hydra, named, own, config_name, baselines=not sweep.is_for_slurm))


def check_ahead(points: Sequence[Point], *, read_data: bool) -> None:
    """Raise one ConfigError for all unfinished points that could not start; see `preflight`."""
    from robustlab.engine.preflight import preflight  # imports torch

    runs = [(point, " ".join(point.overrides)) for point in points if not point.is_done]
    beside = [(point.baseline, f"{label}, which compare names") for point, label in runs if point.baseline is not None]
    preflight([*((label, point.settings) for point, label in runs), *((b, a) for a, b in beside)], read_data=read_data)


def _plugin_problems(master: DictConfig) -> list[str]:
    """Return the problems of `hydra.sweeper` and `hydra.launcher` that Hydra's plugins do not report themselves."""
    found = [
        f"hydra.{key}: expected a group with a _target_, got {show(node)}; choose one with hydra/{key}=<name>"
        for key in ("sweeper", "launcher")
        if not hasattr(node := master.hydra[key], "get") or not node.get("_target_")
    ]
    size = None if found else master.hydra.sweeper.get("max_batch_size")
    if isinstance(size, int) and size < 1:
        found.append(f"hydra.sweeper.max_batch_size: expected a whole number >= 1 or null, got {size}")
    return found


def _searched(sweeper: DictConfig) -> list[str]:
    """Return the search space in a sweeper's own settings, as overrides."""
    found = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    for key, space in ({} if found else sweeper.get("search_space") or {}).items():
        choices = space.get("choices")
        found.append(f"{key}={','.join(map(str, choices)) if choices else f'interval({space.low},{space.high})'}")
    return found


def is_hydra(override: str) -> bool:
    """Return whether an override is about Hydra itself and not about the run."""
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def expand_sweep(hydra: Hydra, overrides: Sequence[str], params: Mapping[str, Any]) -> list[list[str]]:
    """Return one list of overrides per point.

    - overrides: overrides of the runs.
    - params: `hydra.sweeper.params`, applied before the overrides.

    Raises `ConfigError` if they do not expand, or expand to nothing.
    """
    from hydra.errors import HydraException

    named = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    try:
        refuse(intervals(named))
        points = expand(named)
        refuse([] if points else empty_sweeps(hydra, named))
    except HydraException as error:
        refuse(explain(hydra, overrides, error, sweep=True))
        raise
    return points


def representatives(hydra: Hydra, overrides: Sequence[str]) -> list[list[str]]:
    """Return points that represent a search: the first value of every key, then each other choice or bound of one key.

    Raises one `ConfigError` for overrides that cannot be read or have no value.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    values: dict[str, list[str]] = {}
    try:
        parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(overrides))
    except HydraException as error:
        refuse(explain(hydra, overrides, error, sweep=True))
        raise
    for override in parsed:
        key, value = override.get_key_element(), override.value()
        if override.is_interval_sweep():
            values[key] = [f"{key}={value.start}", f"{key}={value.end}"]  # type: ignore[union-attr]
        elif override.is_sweep_override():
            values[key] = [f"{key}={text}" for text in override.sweep_string_iterator()]
            refuse([] if values[key] else empty_sweeps(hydra, [override.input_line or ""]))
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    first = {key: texts[0] for key, texts in values.items()}
    others = [{**first, key: text} for key, texts in values.items() for text in texts[1:]]
    return [list(point.values()) for point in (first, *others)]


def checked(
    hydra: Hydra,
    points: Sequence[Sequence[str]],
    hydra_overrides: Sequence[str],
    config_name: str = CONFIG_NAME,
    *,
    baselines: bool = True,
) -> list[Point]:
    """Compose and check every point and its run folder.

    - baselines: also check the runs that `compare` names.

    Raises one `ConfigError` with all problems, each with the first point that has it, and `RunFolderError` for a folder
    that cannot be written.
    """
    from hydra.errors import HydraException

    compose, found, good = Composer(hydra, hydra_overrides, config_name), dict[str, str](), list[Point]()
    folders = Folders()
    for point in points:
        try:
            messages = no_options(hydra, point)
            if not messages:
                cfg, own = compose(point)
                settings, messages = inspect(cfg)
                messages = [*own, *messages] or folders.problems(cfg, settings, point)
                beside = None
                if not messages and baselines and has_baseline(cfg):
                    beside, messages = folders.baseline(lambda other: compose(other)[0], cfg, point)
                if not messages:
                    good.append(Point(list(point), settings, beside, is_done(cfg)))
        except HydraException as error:
            messages = explain(hydra, point, error)
        for message in messages:
            found.setdefault(message, " ".join(point))
    refuse([f"{message} (in the point {point})" for message, point in found.items()])
    for point in good:
        refuse_unwritable(point.settings)
    return good
