"""Check all runs of a command against configuration and data before the first one starts."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from robustlab.config.build import build
from robustlab.config.check import refuse
from robustlab.config.layouts import flat_in_todays_words
from robustlab.config.occupant import of_resolved, plain
from robustlab.core.console import quiet
from robustlab.core.errors import ConfigError, UserError
from robustlab.core.runtime import Runtime, wants_channels_last
from robustlab.core.world import World
from robustlab.data.dataset import DataSource
from robustlab.data.run_data import Data
from robustlab.engine.build_data import build_data
from robustlab.engine.build_method import build_method, check_provided, make_method
from robustlab.engine.diagnostic import check_diagnostics, make_diagnostics
from robustlab.engine.read_data import read_data

_LOG = logging.getLogger(__name__)

CPU = Runtime(torch.device("cpu"))
"""Device on which runs are built for checking: the accelerator may be in use by another process."""


def check_parts(cfg: DictConfig, *, has_data: bool = True) -> None:
    """Raise ConfigError for problems that show without reading samples: refused values and missing or unsuitable data.

    - has_data: whether the data should be on this machine; if not, checks that need its files are skipped.
    """
    method = make_method(cfg, processes=World.from_environment().size)
    try:
        build(cfg.optimizer)([torch.nn.Parameter(torch.zeros(1, 1))])
    except ValueError as error:
        raise ConfigError(f"optimizer: {error}") from error
    if cfg.noise.model is not None:
        build(cfg.noise.model)
    diagnostics = make_diagnostics(cfg)
    if method.requires or any(one.requires for one in diagnostics.values()):
        try:
            announced = _announced(build(cfg.dataset.source))
        except UserError:
            if has_data:
                raise
            return
        check_provided(method, cfg, announced)
        check_diagnostics(diagnostics, cfg, announced)


def check_beside(other: DictConfig, cfg: DictConfig, data: Data | None, runtime: Runtime) -> None:
    """Raise ConfigError if the baseline (`compare`) of a run could not start.

    - other: configuration of the baseline.
    - cfg, data: configuration and data of the run; data None: only check what needs no data.
    """
    with _unchanged_streams(runtime), _named(f"compare={cfg.compare} (compare=null leaves it out): "):
        if data is None:
            check_parts(other)
            return
        with quiet():
            build_method(other, data if _same_data(other, cfg) else build_data(other, runtime), runtime)


def preflight(runs: Sequence[tuple[str, Mapping[str, Any]]], *, read_data: bool) -> None:
    """Raise one ConfigError for all runs of a sweep that could not start.

    Errors other than ConfigError, from a damaged file or a lack of memory, are left to the run itself, so that the
    other runs still start.

    - runs: label for messages, and plain settings, of each run.
    - read_data: read each data set once and build, one at a time on the CPU, the method and networks of all runs that
      differ in more than seed and rates.
    """
    found: dict[str, str] = {}
    distinct = _first_of(runs, _run_key)
    for label, settings in distinct:
        cfg = OmegaConf.create(dict(settings))
        _collect(found, label, lambda cfg=cfg: check_parts(cfg, has_data=read_data))
    unlike = _first_of(distinct, lambda settings: _run_key(settings, rates=False))
    if read_data and not found and len(unlike) > 1:  # the first run to start checks itself
        _build_all(unlike, found)
    refuse([f"{message} (in the point {label})" if label else message for message, label in found.items()])


def _first_of(
    runs: Sequence[tuple[str, Mapping[str, Any]]], key: Callable[[Mapping[str, Any]], str]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the first run for each value of a key, in order."""
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for label, settings in runs:
        first.setdefault(key(settings), (label, settings))
    return list(first.values())


def _build_all(runs: Sequence[tuple[str, Mapping[str, Any]]], found: dict[str, str]) -> None:
    by_data: dict[str, list[tuple[str, DictConfig]]] = {}
    for label, settings in runs:
        by_data.setdefault(_data_key(settings), []).append((label, OmegaConf.create(dict(settings))))
    for sharing in reversed(by_data.values()):  # the first point starts first, so its data should stay
        first, data = sharing[0], list[Data]()
        _collect(found, first[0], lambda cfg=first[1], data=data: data.append(read_data(cfg, _on_cpu(cfg))))
        for label, cfg in sharing if data else ():
            with quiet():
                _collect(found, label, lambda cfg=cfg, data=data: build_method(cfg, data[0], CPU))


def _on_cpu(cfg: DictConfig) -> Runtime:
    return replace(CPU, channels_last=wants_channels_last(cfg.trainer))


def _collect(found: dict[str, str], label: str, check: Callable[[], object]) -> None:
    try:
        with _unchanged_streams(CPU):
            check()
    except ConfigError as error:
        found.setdefault(str(error), label)
    except Exception as error:  # the run will raise it again and report it in full, without stopping the others
        _LOG.debug("%s: left to the run: %r", label, error)


def _announced(source: DataSource) -> frozenset[str]:
    """Return what a source declares to provide, without reading samples."""
    return frozenset(source.provides) | ({"groups"} if source.task.attribute_names else frozenset())


def _same_data(one: DictConfig, other: DictConfig) -> bool:
    return _data_key(plain(one)) == _data_key(plain(other)) and one.seed == other.seed


def _data_key(settings: Mapping[str, Any]) -> str:
    """Return a key for the data of a run, ignoring the seed; includes the model if its features are the data."""
    groups = ("dataset", "noise", "features", *(["model"] if settings.get("features") else []))
    known = flat_in_todays_words(of_resolved(settings))
    own = {key: value for key, value in known.items() if key.partition(".")[0] in groups}
    return _key([own, _places(settings)])


def _run_key(settings: Mapping[str, Any], *, rates: bool = True) -> str:
    """Return a key for a run, ignoring the seed; without `rates`, all non-integer numbers count as equal."""

    def coarse(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: coarse(item) for key, item in value.items()}
        if isinstance(value, list):
            return [coarse(item) for item in value]
        return "a number" if isinstance(value, float) and not value.is_integer() else value

    own = {key: value for key, value in of_resolved(settings).items() if key != "seed"}
    return _key([own if rates else coarse(own), _places(settings)])


def _places(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings["paths"].items() if key != "run_dir"}


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


@contextlib.contextmanager
def _named(prefix: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


@contextlib.contextmanager
def _unchanged_streams(runtime: Runtime) -> Iterator[None]:
    """Leave torch's global random streams where they are."""
    with torch.random.fork_rng(devices=[runtime.device] if runtime.device.type == "cuda" else []):
        yield
