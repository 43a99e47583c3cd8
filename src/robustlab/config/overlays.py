"""Find overlays by name: a method's values for a setting, in `conf/overlay/<setting>/<method>.yaml`.

train.yaml includes them last, `- optional overlay: ${overlay_of:<setting>,<method>,<noise>}`, so they apply after the
experiment and before the command line, for the method that is finally chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from posixpath import dirname, join, normpath
from typing import TYPE_CHECKING, Any

from robustlab.config.hydra_session import CONFIG_NAME, all_options, current_session, is_option

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.default_element import InputDefault
    from hydra.plugins.config_source import ConfigResult

ANY = "any"
"""Name in place of the setting for overlays that apply to any data; used when the setting has none of its own."""


def overlay_of(setting: str, method: str, noise: str) -> str:
    """Return the option of `overlay` that a method uses, or the name it would have if there is none.

    This is the first that exists of <setting>/<method>/<noise>, <setting>/<method>, the same for each method that the
    method's file builds on (through its defaults list), and any/<method>.
    """
    methods = lineage(method)
    wanted = [f"{setting}/{name}{end}" for name in methods for end in (f"/{noise}", "")]
    wanted += [f"{ANY}/{name}" for name in methods]
    return next((name for name in wanted if is_option("overlay", name)), f"{setting}/{method}")


def for_method(method: str, special: str, option: str, otherwise: str) -> str:
    """Return `option` for the method `special` and methods that build on it, else `otherwise`.

    For defaults lists: `override /optimizer: ${for_method:${method},spectral_decoupling,adam,sgd}`.
    """
    return option if special in lineage(method) else otherwise


def lineage(method: str) -> tuple[str, ...]:
    """Return a method and the methods that its file builds on, nearest first, under their command-line names."""
    with current_session() as (loader, search):
        return _lineage(loader, search, method)


@lru_cache(maxsize=1024)
def _lineage(loader: ConfigLoader, search: tuple[str, ...], method: str) -> tuple[str, ...]:
    found, waiting = list[str](), [method]
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found.append(name)
            config = _load(loader, search, f"method/{name}")
            waiting += _bases(name, (config.defaults_list or []) if config is not None else [])
    return tuple(found)


def _bases(name: str, defaults: Iterable[InputDefault]) -> Iterator[str]:
    from hydra.core.default_element import ConfigDefault, GroupDefault

    for default in defaults:
        if isinstance(default, GroupDefault):
            path = f"{default.group}/{default.value}"
        else:
            path = str(default.path) if isinstance(default, ConfigDefault) else ""
        place = normpath(path if path.startswith("/") else join("/method", dirname(name), path))
        is_part = place.rpartition("/")[2].startswith("_")  # _self_, and what methods share without being one
        if place.startswith("/method/") and not is_part:
            yield place.removeprefix("/method/")


@lru_cache(maxsize=1024)
def _load(loader: ConfigLoader, search: tuple[str, ...], path: str) -> ConfigResult | None:
    repository = loader._parse_overrides_and_create_caching_repo(CONFIG_NAME, list(search))[1]  # type: ignore[attr-defined]
    return repository.load_config(path)


def value_notes(cfg: Mapping[str, Any]) -> list[str]:
    """Return notes to print before training about values that were meant for other data than the run's.

    A method whose paper sets values per data set lists in `values_for` where its own apply: settings or data sets,
    alone or with a noise model (`cifar10/symmetric`).
    """
    method, setting, data, noise = cfg["method"], cfg.get("setting"), cfg["dataset"]["name"], cfg["noise"]["name"]
    notes = []
    if setting and data not in setting["datasets"]:
        meant = ", ".join(setting["datasets"])
        notes.append(f"setting={setting['name']}: its values are for {meant}, not for {data} (setting=none drops them)")
    known, place = method.get("values_for"), setting["name"] if setting else data
    if known is not None and place not in known and f"{place}/{noise}" not in known:
        used = f"those for {', '.join(map(_in_words, known))}" if known else "its defaults"
        missing = f"{method['name']}: no values of its own for {_in_words(f'{place}/{noise}')}, using {used}"
        notes.append(missing if setting else missing + _settings_with(data, method["name"]))
    return notes


def _in_words(place: str) -> str:
    name, _, noise = place.partition("/")
    return name if noise in ("", "none") else f"{name} with {noise} noise"


def _settings_with(data: str, method: str) -> str:
    """Name the settings of a data set for which a method has values."""
    there = [
        f"setting={name}"
        for name in all_options("setting")
        if is_option("overlay", f"{name}/{method}") and data in _datasets(name)
    ]
    return f" (see {', '.join(there)})" if there else ""


def _datasets(setting: str) -> list[str]:
    with current_session() as (loader, search):
        config = _load(loader, search, f"setting/{setting}")
    chosen = config.config["setting"] if config is not None else None
    return list(chosen["datasets"]) if chosen else []
