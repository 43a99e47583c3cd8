"""The open Hydra: its search path, the options of groups, and loading a configuration from overrides."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.core.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
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


@contextmanager
def opened(make: Callable[[], Hydra]) -> Iterator[Hydra]:
    """Make a Hydra the open one, and afterwards put back whatever was open before."""
    from hydra.core.global_hydra import GlobalHydra

    before, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    token = _search_overrides.set([])
    try:
        hydra = GlobalHydra.instance().hydra = make()
        yield hydra
    finally:
        _search_overrides.reset(token)
        GlobalHydra.instance().hydra = before


def hydra_on(folder: str, config_dirs: Sequence[str | Path] = ()) -> Hydra:
    """Return a Hydra on a folder of YAML files and `config_dirs`. Raises `ConfigError` for a missing folder."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    version.setbase(None)
    search_path = create_config_search_path(folder)
    for added in config_dirs:
        if not Path(added).is_dir():
            raise ConfigError(f"--config-dir {added}: no such folder")
        path = f"file://{os.path.abspath(added)}"
        search_path.prepend(provider="command-line", path=path, anchor=SearchPathQuery(provider="schema"))
    return Hydra.create_main_hydra2(CONFIG_NAME, search_path)


@lru_cache(maxsize=1)
def hydra_on_conf(folder: str) -> Hydra:
    """Return the Hydra shared by all calls of `compose`; a new one would have to list the same groups again."""
    return hydra_on(folder)


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
        with opened(lambda: hydra_on(str(conf_dir()))) as hydra:  # listing options needs no resolvers
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
