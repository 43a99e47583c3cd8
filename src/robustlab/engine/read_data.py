"""The data of a run, read once where runs of one command follow each other on the same data."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from omegaconf import DictConfig

from robustlab.config.occupant import plain
from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.engine.build_data import build_data

_shared: ContextVar[dict[str, Data] | None] = ContextVar("_shared", default=None)
"""Inside of `shared_data`: what was read last, by all that it follows from. One entry at most, however many runs."""


@contextlib.contextmanager
def shared_data() -> Iterator[None]:
    """Let runs inside this block use the data that were read last, which are forgotten at its end.

    So files that change between two commands of one process, in a notebook say, are read again.
    """
    token = _shared.set({}) if _shared.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _shared.reset(token)


def read_data(cfg: DictConfig, runtime: Runtime) -> Data:
    """Return the data of a configuration: inside `shared_data` those at hand, if nothing they follow from differs.

    Serving batches changes nothing in `Data`, so that runs may share it. What is at hand is let go before other data
    are read.
    """
    shared = _shared.get()
    if shared is None:
        return build_data(cfg, runtime)
    key = _key(cfg, runtime)
    if key not in shared:
        shared.clear()
        shared[key] = build_data(cfg, runtime)
    return shared[key]


def _key(cfg: DictConfig, runtime: Runtime) -> str:
    """Return every setting that `build_data` looks at, also those that tell no runs apart: seed, places, workers."""
    settings = plain(cfg)
    groups = ("seed", "dataset", "noise", "features", *(["model"] if settings.get("features") else []))
    own: dict[str, Any] = {key: settings.get(key) for key in groups}
    own["paths"] = {key: value for key, value in settings["paths"].items() if key not in ("run_dir", "output_dir")}
    own["runtime"] = [str(runtime.device), runtime.channels_last, runtime.rank, runtime.world_size]
    return json.dumps(own, sort_keys=True, default=str)
