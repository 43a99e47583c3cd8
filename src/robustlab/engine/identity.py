"""What a run is, kept in its checkpoints and its record, and what may differ when it goes on."""

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
"""Circumstances under which a run must go on unless `resume=force` says otherwise. The others change last bits only."""


def run_identity(cfg: DictConfig, runtime: Runtime) -> dict[str, Any]:
    """Return plain types: run_name, seed, settings as `key.in.dots` -> value, contents, circumstances of this start."""
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
    """Return what a run goes on differently from how it was saved, in words, to be shown and recorded.

    saved, now: of `run_identity`. Raises ConfigError listing the differences where they make it another run; with
    `force` they are returned, too.
    """
    others = compared(saved["circumstances"], now["circumstances"])
    refused = {**_changed(saved, now), **{name: text for name, text in others.items() if name in _MUST_STAY}}
    if force and saved["settings"].get(_OPTIMIZER) != now["settings"].get(_OPTIMIZER):
        raise ConfigError(
            f"{folder}: resume=force cannot hand the state of one optimizer to another ({refused[_OPTIMIZER]}); start "
            "anew with resume=false, or in another folder"
        )
    if refused and not force:
        raise ConfigError(
            f"{folder} holds a run that was saved with other settings or circumstances:{listed(refused)}"
            "\nStart it as before, choose another folder with paths.run_dir=..., start anew with resume=false, or go "
            "on all the same with resume=force: the result is then not that of one uninterrupted run"
        )
    forced = [f"resume=force: {text}" for text in refused.values()]
    return forced + [
        f"{text}; the last bits of the result may change" for name, text in others.items() if name not in refused
    ]


def history(saved: Mapping[str, Any], now: Mapping[str, Any], cfg: DictConfig) -> dict[str, list[Any]]:
    """Return `extended_from` and `forced` of a run that goes on from a checkpoint, those of earlier starts included.

    saved: the identity in the checkpoint; now: that of `cfg`. extended_from: the numbers of epochs that the run was
    planned for before, where more epochs were all that changed; forced: other changes, in words.
    """
    past = {key: list(saved.get(key, [])) for key in HISTORY}
    changed = _changed(saved, now)
    if changed and is_extended(saved, cfg):
        past["extended_from"].append(saved["settings"][EPOCHS])
    else:
        past["forced"] += changed.values()
    return {key: values for key, values in past.items() if values}


def has_changed(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether the settings or the seed of a run differ from those in its checkpoint."""
    return bool(_changed(saved, now))


def is_extended(saved: Mapping[str, Any], cfg: DictConfig) -> bool:
    """Tell whether a checkpoint is of the same run with fewer epochs."""
    before = saved["settings"].get(EPOCHS)
    if not isinstance(before, int) or before >= cfg.trainer.epochs or saved["seed"] != cfg.seed:
        return False
    if changed_contents(saved.get(CONTENTS, {}), contents(cfg)):
        return False
    return saved["settings"] == flat(identity(with_epochs(cfg, before)))


def result_name(now: Mapping[str, Any]) -> str:
    """Return the name under which results are grouped: that of the settings, or another one for a run with a history.

    So no table takes a run that was extended for one that was trained in one go.
    """
    past = {key: now[key] for key in HISTORY if key in now}
    if not past:
        return now["run_name"]
    digest = hashlib.sha256(json.dumps([now["run_name"], past], sort_keys=True).encode()).hexdigest()[:8]
    return f"{now['run_name'].rpartition('-')[0]}-{digest}"


def _changed(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    settings = compared_settings({"seed": saved["seed"], **saved["settings"]}, {"seed": now["seed"], **now["settings"]})
    return settings | changed_contents(saved.get(CONTENTS, {}), now.get(CONTENTS, {}))
