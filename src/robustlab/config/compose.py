"""Compose configurations with Hydra and expand sweeps into points, for the command line, tests and scripts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.config.default_experiment import with_default_experiment
from robustlab.config.hydra_session import conf_dir, hydra_on, hydra_on_conf, load, opened, without_hydra
from robustlab.config.resolvers import register
from robustlab.core.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.conf import HydraConf
    from omegaconf import DictConfig


def session(config_dirs: Sequence[str | Path] = (), *, config_path: str | None = None) -> AbstractContextManager[Hydra]:
    """Open Hydra on conf/ and `config_dirs` (like `--config-dir`); restore any previously open Hydra on exit.

    - config_path: folder to use instead of conf/ (like `--config-path`).

    Raises `ConfigError` for a missing folder.
    """
    register()
    return opened(lambda: hydra_on(config_path or str(conf_dir()), config_dirs))


def import_from_here() -> None:
    """Let a `_target_` name a module in the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def compose(overrides: Sequence[str] = (), *, config_dirs: Sequence[str | Path] = ()) -> DictConfig:
    """Return the configuration that `train <overrides>` would run with, not yet checked (see `check.check`).

    Raises `ConfigError` if the overrides do not compose.
    """
    from hydra.errors import HydraException

    from robustlab.config.explain import explain

    register()
    overrides = with_default_experiment(overrides)
    with session(config_dirs) if config_dirs else opened(lambda: hydra_on_conf(str(conf_dir()))) as hydra:
        try:
            return without_hydra(load(hydra, overrides))
        except HydraException as error:
            raise ConfigError("; ".join(explain(hydra, overrides, error))) from error


def compose_again(overrides: Sequence[str]) -> DictConfig:
    """Return the checked configuration of other overrides, composed on the current job's search path.

    Called from inside a job that Hydra runs, on this machine or another. Raises `ConfigError`.
    """
    from hydra.core.hydra_config import HydraConfig

    from robustlab.config.check import check

    current = HydraConfig.get()
    folders = [source.path for source in current.runtime.config_sources if source.provider == "command-line"]
    cfg = compose([*_search_overrides_of(current), *overrides], config_dirs=folders)
    check(cfg)
    return cfg


def command_line_dirs(hydra: Hydra) -> list[str]:
    """Return the folders that `--config-dir` added to an open Hydra. Raises `ConfigError` if conf/ was replaced."""
    path = hydra.config_loader.get_search_path().get_path()
    if any(item.provider == "main" and item.path.removeprefix("file://") != str(conf_dir()) for item in path):
        raise ConfigError("--config-path: cluster runs always use this code's conf/; add options with --config-dir")
    return [item.path.removeprefix("file://") for item in path if item.provider == "command-line"]


def search_flags() -> list[str]:
    """Return the flags that let another command line find the same options as the current job."""
    from hydra.core.hydra_config import HydraConfig

    current = HydraConfig.get()
    folders = [source.path for source in current.runtime.config_sources if source.provider == "command-line"]
    return [*(word for folder in folders for word in ("--config-dir", folder)), *_search_overrides_of(current)]


def _search_overrides_of(current: HydraConf) -> list[str]:
    return [text for text in current.overrides.hydra if text.lstrip("+").startswith("hydra.searchpath=")]


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Return the points of a sweep, one list of overrides per point, in the order of Hydra's basic sweeper.

    The grammar is Hydra's: `a=1,2`, `choice(...)`, `range(...)`, `glob(...)` over a group's options.

    Raises Hydra's exceptions.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    current = GlobalHydra.instance().hydra
    if current is None:
        with session():
            return expand(overrides)
    parser = OverridesParser.create(config_loader=current.config_loader)
    return BasicSweeper.split_arguments(parser.parse_overrides(list(overrides)), None)[0]
