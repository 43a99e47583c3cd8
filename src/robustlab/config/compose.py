"""Compose configurations with Hydra and expand sweeps into points, for the command line, tests and scripts."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.config.default_experiment import with_default_experiment
from robustlab.config.resolvers import register
from robustlab.core.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.conf import HydraConf
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.object_type import ObjectType
    from hydra.types import RunMode
    from omegaconf import DictConfig

CONFIG_NAME = "train"

_search_overrides: ContextVar[list[str]] = ContextVar("_search_overrides", default=[])  # noqa: B039 never changed


@cache
def conf_dir() -> Path:
    """Return the folder of YAML files: inside the package if installed from a wheel, else at the repository root."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise ConfigError(
        f"robustlab's conf/ folder is neither in {package} nor in {package.parents[1]}; reinstall robustlab"
    )


def session(config_dirs: Sequence[str | Path] = (), *, config_path: str | None = None) -> AbstractContextManager[Hydra]:
    """Open Hydra on conf/ and `config_dirs` (like `--config-dir`); restore any previously open Hydra on exit.

    - config_path: folder to use instead of conf/ (like `--config-path`).

    Raises `ConfigError` for a missing folder.
    """
    return _opened(lambda: _hydra(config_path or str(conf_dir()), config_dirs))


@contextmanager
def _opened(make: Callable[[], Hydra]) -> Iterator[Hydra]:
    from hydra.core.global_hydra import GlobalHydra

    before, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    token = _search_overrides.set([])
    try:
        hydra = GlobalHydra.instance().hydra = make()
        yield hydra
    finally:
        _search_overrides.reset(token)
        GlobalHydra.instance().hydra = before


def _hydra(folder: str, config_dirs: Sequence[str | Path] = ()) -> Hydra:
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    register()
    version.setbase(None)
    search_path = create_config_search_path(folder)
    for added in config_dirs:
        if not Path(added).is_dir():
            raise ConfigError(f"--config-dir {added}: no such folder")
        path = f"file://{os.path.abspath(added)}"
        search_path.prepend(provider="command-line", path=path, anchor=SearchPathQuery(provider="schema"))
    return Hydra.create_main_hydra2(CONFIG_NAME, search_path)


@lru_cache(maxsize=1)
def _hydra_on_conf(folder: str) -> Hydra:
    """Return the Hydra shared by all calls of `compose`; a new one would have to list the same groups again."""
    return _hydra(folder)


def import_from_here() -> None:
    """Let a `_target_` name a module in the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def load(
    hydra: Hydra, overrides: Sequence[str], mode: RunMode | None = None, *, config_name: str = CONFIG_NAME
) -> DictConfig:
    """Compose with an open Hydra; the result includes the node `hydra`.

    Raises Hydra's exceptions, and ConfigError for a file that is not YAML.
    """
    from hydra.types import RunMode

    from robustlab.config.yaml_files import readable

    _search_overrides.set([text for text in overrides if text.lstrip("+").startswith("hydra.searchpath=")])
    with readable(hydra):
        return hydra.compose_config(config_name, list(overrides), mode or RunMode.RUN, with_log_configuration=False)


def options(group: str) -> list[str]:
    """Return the options directly in a group's folder, anywhere on the open Hydra's search path."""
    from hydra.core.object_type import ObjectType

    return _inside(group, ObjectType.CONFIG)


def is_option(group: str, name: str) -> bool:
    """Return whether `name`, as written on the command line, is an option of a group; cheaper than listing them."""
    folder, _, last = name.rpartition("/")
    return not last.startswith("_") and last in options(f"{group}/{folder}" if folder else group)


def is_group(name: str) -> bool:
    """Return whether `name` is a group: a folder of options, or of folders of options."""
    return "." not in name and bool(_inside(name, None))


@contextmanager
def current_session() -> Iterator[tuple[ConfigLoader, tuple[str, ...]]]:
    """Yield the loader of the open Hydra (or of a new one) and the overrides of its search path."""
    from hydra.core.global_hydra import GlobalHydra

    current = GlobalHydra.instance().hydra
    if current is not None:
        yield current.config_loader, tuple(_search_overrides.get())
    else:
        with session() as hydra:
            yield hydra.config_loader, ()


def _inside(group: str, kind: ObjectType | None) -> list[str]:
    with current_session() as (loader, search):
        return list(_listed(loader, group, kind, search))


@lru_cache(maxsize=1024)  # every check of a point asks for the same groups, at 5 ms each
def _listed(loader: ConfigLoader, group: str, kind: ObjectType | None, search: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(loader.get_group_options(group, kind, config_name=CONFIG_NAME, overrides=list(search)))


def all_options(group: str) -> list[str]:
    """Return the options of a group and its subfolders that a command line may choose, as written there."""
    from hydra.core.object_type import ObjectType

    found = [
        name for name in options(group) if not name.startswith("_")
    ]  # _name: shared by other options, not an option itself
    for folder in _inside(group, ObjectType.GROUP):
        found += [f"{folder}/{name}" for name in all_options(f"{group}/{folder}")]
    return found


def without_hydra(cfg: DictConfig) -> DictConfig:
    """Return a copy of a composed configuration without the node `hydra`, as a run sees it."""
    from omegaconf import open_dict

    cfg = copy.deepcopy(cfg)
    with open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg


def compose(overrides: Sequence[str] = (), *, config_dirs: Sequence[str | Path] = ()) -> DictConfig:
    """Return the configuration that `train <overrides>` would run with, not yet checked (see `check.check`).

    Raises `ConfigError` if the overrides do not compose.
    """
    from hydra.errors import HydraException

    from robustlab.config.explain import explain

    overrides = with_default_experiment(overrides)
    with session(config_dirs) if config_dirs else _opened(lambda: _hydra_on_conf(str(conf_dir()))) as hydra:
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
