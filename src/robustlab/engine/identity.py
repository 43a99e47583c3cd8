"""Define a run's identity, stored in checkpoints and record, and what may differ when the run is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from robustlab.config.contents import changed_contents, contents
from robustlab.config.dotted import flat
from robustlab.config.occupant import (
    CONTENTS,
    EPOCHS,
    HISTORY,
    compared,
    compared_settings,
    listed,
    with_epochs,
)
from robustlab.config.run_names import identity, run_name
from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime

_OPTIMIZER = "optimizer._target_"
_MUST_STAY = ("torch", "precision", "processes")
"""Circumstances that must not change on resume, unless `resume=force`. The others only affect the last bits."""


def run_identity(cfg: DictConfig, runtime: Runtime) -> dict[str, Any]:
    """Return plain types: run_name, seed, settings (dotted key -> value), contents, circumstances of this start."""
    return {
        "run_name": run_name(cfg),
        "seed": cfg.seed,
        "settings": flat(identity(cfg)),
        CONTENTS: contents(cfg),
        "circumstances": {
            "torch": str(torch.__version__),
            "precision": runtime.precision,
            "processes": runtime.world_size,
            "device": runtime.device.type,
            "threads": torch.get_num_threads(),
        },
    }


def check_resumable(saved: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path, force: bool) -> list[str]:
    """Return messages about the differences between a run as saved and as resumed, to be shown and recorded.

    - saved, now: as returned by `run_identity`.
    - force: also return differences that would otherwise be refused.

    Raises ConfigError that lists the differences if they make it a different run.
    """
    others = compared(saved["circumstances"], now["circumstances"])
    refused = {**_changed(saved, now), **{name: text for name, text in others.items() if name in _MUST_STAY}}
    if force and saved["settings"].get(_OPTIMIZER) != now["settings"].get(_OPTIMIZER):
        raise ConfigError(
            f"{folder}: resume=force cannot transfer state between optimizers ({refused[_OPTIMIZER]}); start over with "
            "resume=false, or in another folder"
        )
    if refused and not force:
        raise ConfigError(
            f"{folder} holds a run saved with different settings or circumstances:{listed(refused)}"
            "\nStart it as before, choose another folder with paths.run_dir=..., start over with resume=false, or "
            "continue anyway with resume=force: the result then differs from an uninterrupted run's"
        )
    forced = [f"resume=force: {text}" for text in refused.values()]
    return forced + [
        f"{text}; the last bits of the result may change" for name, text in others.items() if name not in refused
    ]


def history(saved: Mapping[str, Any], now: Mapping[str, Any], cfg: DictConfig) -> dict[str, list[Any]]:
    """Return `extended_from` and `forced` of a run resumed from a checkpoint, including those of earlier starts.

    `extended_from` holds the previously planned numbers of epochs, if only those have grown; `forced` describes other
    changes.

    - saved: identity in the checkpoint.
    - now: identity of `cfg`.
    """
    past = {key: list(saved.get(key, [])) for key in HISTORY}
    changed = _changed(saved, now)
    if changed and is_extended(saved, cfg):
        past["extended_from"].append(saved["settings"][EPOCHS])
    else:
        past["forced"] += changed.values()
    return {key: values for key, values in past.items() if values}


def has_changed(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether the settings or the seed of a run differ from its checkpoint's."""
    return bool(_changed(saved, now))


def is_extended(saved: Mapping[str, Any], cfg: DictConfig) -> bool:
    """Return whether a checkpoint belongs to the same run with fewer epochs."""
    before = saved["settings"].get(EPOCHS)
    if not isinstance(before, int) or before >= cfg.trainer.epochs or saved["seed"] != cfg.seed:
        return False
    if changed_contents(saved.get(CONTENTS, {}), contents(cfg)):
        return False
    return saved["settings"] == flat(identity(with_epochs(cfg, before)))


def result_name(now: Mapping[str, Any]) -> str:
    """Return the name by which results are grouped: the run name, with a different hash for a run with a history.

    This keeps tables from mixing extended runs with runs trained in one go. The messages in `forced` enter the hash, so
    their wording must not change.
    """
    past = {key: now[key] for key in HISTORY if key in now}
    if not past:
        return now["run_name"]
    digest = hashlib.sha256(json.dumps([now["run_name"], past], sort_keys=True).encode()).hexdigest()[:8]
    return f"{now['run_name'].rpartition('-')[0]}-{digest}"


def _changed(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    settings = compared_settings({"seed": saved["seed"], **saved["settings"]}, {"seed": now["seed"], **now["settings"]})
    return settings | changed_contents(saved.get(CONTENTS, {}), now.get(CONTENTS, {}))
