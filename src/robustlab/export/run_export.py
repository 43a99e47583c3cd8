"""Export a trained network as two self-contained files, `model.safetensors` and `model.json`; never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from robustlab.config.stored_config import read_config
from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.core.files import write_text
from robustlab.export.exported_network import DESCRIPTION, FORMAT, TENSORS, described_network, read_json, restored
from robustlab.models.trained_network import trained_network
from robustlab.models.units import RESIDUAL_MODES, Units, units_of
from robustlab.pruning.cost import forward_flops, parameters


@dataclass(frozen=True)
class Exported:
    """The export: its folder, the content of `model.json`, the network, and the unpruned untrained network."""

    folder: Path
    description: Mapping[str, Any]
    network: nn.Module
    dense: nn.Module


def export_run(run: Path, out: Path, *, weights: str = "last", learner: str | None = None) -> Exported:
    """Write the network that a run predicts with (its moving average if it has one) to the folder `out`.

    - weights: file in the run's `checkpoints/` without ".pt", e.g. "last"; learner: the network, if there are several.

    Raises `ConfigError` if the run or its weights are missing or damaged, `RunFolderError` if `out` is not writable.
    """
    config = read_config(run)
    if not isinstance(config.get("model"), Mapping) or "_target_" not in config["model"]:
        raise ConfigError(f"{run} is not a run folder: it has no config.yaml that names a model")
    if config.get("features"):
        raise ConfigError(
            f"{run} trained only a linear classifier on frozen features; export the run that the features' weights "
            "come from"
        )
    task = read_json(run / "task.json", needed=("num_classes", "image_shape", "mean", "std", "class_names"))
    learner, state, units_state = trained_network(run, weights, learner)
    node = dict(config["model"])
    if "projection.0.weight" in state:
        node["proj_dim"] = len(state["projection.0.weight"])
    live = units_state["live"] if units_state else {}
    idle = units_state["idle"] if units_state else {}
    description: dict[str, Any] = {
        "format": FORMAT,
        "model": node,
        "num_classes": task["num_classes"],
        "image_shape": task["image_shape"],
        "normalisation": {"mean": task["mean"], "std": task["std"]},
        "class_names": task["class_names"],
        "channels_last": any(_is_channels_last(value) for value in state.values()),
        "residual": None,
        "units": {name: live[name].tolist() for name in live},
        "idle": {name: idle[name].nonzero().flatten().tolist() for name in idle},
    }
    dense = described_network(description, where=str(run))
    description["residual"] = _residual_mode(dense, live) if live else None
    network = restored(description, state, where=f"{run}, weights {weights}")
    description |= _sparsity(dense, network, description)
    description["run"] = {"name": run.parent.name, "seed": config.get("seed"), "weights": weights, "network": learner}
    try:
        out.mkdir(parents=True, exist_ok=True)
        temporary = out / f".{TENSORS}.{os.getpid()}.tmp"
        save_file({name: value.contiguous() for name, value in state.items()}, temporary)
        description["sha256"] = hashlib.sha256(temporary.read_bytes()).hexdigest()
        os.replace(temporary, out / TENSORS)
        text = json.dumps(description, indent=2)
        write_text(out / DESCRIPTION, re.sub(r"(?<=[\d\[,])\n\s+(?=[\d\]])", " ", text) + "\n")  # a list a line
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"cannot write into {out} ({error}); choose another place with --out") from error
    return Exported(out, description, network, dense)


def _residual_mode(dense: nn.Module, live: Mapping[str, Tensor]) -> str:
    """Return the residual mode in which the network has the unit sets that `live` names."""
    units = units_of(dense)
    for mode in RESIDUAL_MODES:
        if _names(units.in_mode(mode)) == set(live):
            return mode
    raise ConfigError(
        f"the run's units ({', '.join(live)}) differ from the units that its model declares now "
        f"({', '.join(_names(units))})"
    )


def _names(units: Units) -> set[str]:
    return {one.name for one in units.sets}


def _sparsity(dense: nn.Module, network: nn.Module, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return neuron sparsity (idle units count as dead), weight sparsity, parameters and FLOPs."""
    found: dict[str, Any] = {"neuron_sparsity": 0.0}
    if description["units"]:
        total = units_of(dense).in_mode(description["residual"]).total
        live = sum(map(len, description["units"].values())) - sum(map(len, description["idle"].values()))
        found["neuron_sparsity"] = 1 - live / total
    shape = description["image_shape"]
    for name, measure in (("parameters", parameters), ("flops", lambda one: forward_flops(one, shape))):
        found[name], found[f"dense_{name}"] = measure(network), measure(dense)
    found["weight_sparsity"] = 1 - found["parameters"] / found["dense_parameters"]
    return found


def _is_channels_last(value: Tensor) -> bool:
    return value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
