"""What a run is, kept in its checkpoints, and what may differ when it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from robustlab.config.resolvers import identity, run_name
from robustlab.engine.runtime import Runtime
from robustlab.errors import ConfigError

_SHOWN = 10
_MUST_STAY = ("torch", "precision", "processes")
"""Circumstances under which a run must go on unless `resume=force` says otherwise. The others change last bits only."""


def run_identity(cfg: DictConfig, runtime: Runtime) -> dict[str, Any]:
    """Return plain types: run_name, seed, settings as `key.in.dots` -> value, and the circumstances of this start."""
    return {
        "run_name": run_name(cfg),
        "seed": cfg.seed,
        "settings": _flat(identity(cfg)),
        "circumstances": {
            "torch": str(torch.__version__),
            "precision": runtime.precision,
            "processes": runtime.world_size,
            "device": runtime.device.type,
            "threads": torch.get_num_threads(),
        },
    }


def check_resumable(saved: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path, force: bool) -> list[str]:
    """Return what a run goes on differently from how it was saved, in words, to be shown and recorded.

    saved, now: of `run_identity`. Raises ConfigError listing the differences where they make it another run; with
    `force` they are returned, too.
    """
    seeds = {"seed": saved["seed"]}, {"seed": now["seed"]}
    settings = _differences({**saved["settings"], **seeds[0]}, {**now["settings"], **seeds[1]})
    others = _differences(saved["circumstances"], now["circumstances"])
    refused = {**settings, **{name: text for name, text in others.items() if name in _MUST_STAY}}
    if refused and not force:
        listed = [f"\n  {text}" for text in refused.values()]
        more = f"\n  and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        raise ConfigError(
            f"{folder} holds a run that was saved with other settings or circumstances:{''.join(listed[:_SHOWN])}{more}"
            "\nStart it as before, choose another folder with paths.run_dir=..., start anew with resume=false, or go "
            "on all the same with resume=force: the result is then not that of one uninterrupted run"
        )
    forced = [f"resume=force: {text}" for text in refused.values()]
    return forced + [
        f"{text}; the last bits of the result may change" for name, text in others.items() if name not in refused
    ]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    missing = "(not there)"
    return {
        name: f"{name}: {before.get(name, missing)} when it was saved, now {now.get(name, missing)}"
        for name in sorted({*before, *now})
        if before.get(name, missing) != now.get(name, missing)
    }


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested groups by their dotted keys; lists count as leaves."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts = [_flat(part, f"{prefix}.{key}".lstrip(".")) for key, part in value.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}
