"""Read the data of runs, only once for consecutive runs of a command on the same data."""

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
"""Inside `shared_data`: the data read last, by a key of everything it depends on. Never more than one entry."""


@contextlib.contextmanager
def shared_data() -> Iterator[None]:
    """Let runs inside this block reuse the data read last, which is dropped at the end of the block.

    Files that change between two commands of one process, say in a notebook, are therefore read again.
    """
    token = _shared.set({}) if _shared.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _shared.reset(token)


def read_data(cfg: DictConfig, runtime: Runtime) -> Data:
    """Return the data of a configuration, inside `shared_data` the data already read if nothing it depends on differs.

    Serving batches does not change `Data`, so runs may share it. The old data is dropped before other data is read.
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
    """Return every setting that `build_data` uses, including those outside a run's identity: seed, paths, workers."""
    settings = plain(cfg)
    groups = ("seed", "dataset", "noise", "features", *(["model"] if settings.get("features") else []))
    own: dict[str, Any] = {key: settings.get(key) for key in groups}
    own["paths"] = {key: value for key, value in settings["paths"].items() if key not in ("run_dir", "output_dir")}
    own["runtime"] = [str(runtime.device), runtime.channels_last, runtime.rank, runtime.world_size]
    return json.dumps(own, sort_keys=True, default=str)
