"""A trained network as two files that need nothing of its run: `model.safetensors` and `model.json`; never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from robustlab.engine.build import build
from robustlab.engine.checkpoint import read_tensors
from robustlab.errors import ConfigError, RunFolderError
from robustlab.files import write_text
from robustlab.models.weights import load_weights
from robustlab.pruning.cost import forward_flops, parameters
from robustlab.pruning.surgery import Surgeon
from robustlab.pruning.units import RESIDUAL_MODES, Units, units_of
from robustlab.report.collect import read_config

FORMAT = "robustlab-network-1"
TENSORS, DESCRIPTION = "model.safetensors", "model.json"
OWN_WEIGHTS: Mapping[str, Any] = {"weights": None, "pretrained": False}
"""Arguments of a model that would load other weights first, and what they are when it is built for an export."""


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, the content of `model.json`, the network, and the unpruned one, untrained."""

    folder: Path
    description: Mapping[str, Any]
    network: nn.Module
    dense: nn.Module


def export_run(run: Path, out: Path, *, weights: str = "last", learner: str | None = None) -> Exported:
    """Write the network that a run predicts with, its moving average where it has one, into the folder `out`.

    weights: which file of the run's `checkpoints/`, without ".pt": "last", or a selection rule such as "best_test".
    learner: which network, where the method trains several. Raises `ConfigError` for a folder that is no run, or
    weights that are not there or damaged, `RunFolderError` where `out` cannot be written.
    """
    config = read_config(run)
    if not isinstance(config.get("model"), Mapping) or "_target_" not in config["model"]:
        raise ConfigError(f"{run} is no run folder: it has no config.yaml that names a model")
    if config.get("features"):
        raise ConfigError(
            f"{run} trained a linear classifier on frozen features and no network; export the run that the features' "
            "weights come from"
        )
    task = _read_json(run / "task.json", needed=("num_classes", "image_shape", "mean", "std", "class_names"))
    learner, state, units_state = _trained(run, weights, learner)
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
    dense = _network(description, where=str(run))
    description["residual"] = _residual_mode(dense, live) if live else None
    network = _restored(description, state, where=f"{run}, weights {weights}")
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


def load_pruned(folder: str | Path, *, packages: Sequence[str] = ("robustlab.models",)) -> nn.Module:
    """Return the network of an exported run: a plain one of the widths that were left, in evaluation mode, on the CPU.

        python scripts/export.py outputs/<run>/seed0              # writes outputs/<run>/seed0/export
        network = load_pruned("outputs/<run>/seed0/export")
        logits = network((pixels - mean) / std)                   # pixels in [0, 1]; mean, std: see model.json

    Its logits are the run's for the same images float32 [B, C, H, W]. packages: where the model's constructor may come
    from; add your own package for a model of your own. Raises `ConfigError` for files missing, foreign or damaged.
    """
    folder = Path(folder).expanduser()
    path = folder / DESCRIPTION
    needed = ("format", "model", "num_classes", "image_shape", "channels_last", "residual", "units", "sha256")
    description = _read_json(path, needed=needed)
    if description["format"] != FORMAT:
        raise ConfigError(f"{path} has the format {description['format']!r}, not {FORMAT!r}: export the run again")
    for target in _targets(description["model"], str(path)):
        _check_target(target, packages, str(path))
    try:
        content = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise ConfigError(f"{folder / TENSORS} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != description["sha256"]:
        raise ConfigError(f"{folder / TENSORS} is damaged, or not the file that {path} describes: export the run again")
    try:
        state = load(content)
    except SafetensorError as error:
        raise ConfigError(f"{folder / TENSORS} is no safetensors file ({error})") from error
    return _restored(description, state, where=str(folder))


def _trained(run: Path, weights: str, learner: str | None) -> tuple[str, dict[str, Tensor], dict[str, Any] | None]:
    """Return the name and the state of the network that a run predicts with, and which units are left of it."""
    folder = run / "checkpoints"
    there = sorted(path.stem for path in folder.glob("*.pt"))
    if weights not in there:
        raise ConfigError(f"{folder} has no {weights}.pt; there are: {', '.join(there) or 'none'}")
    path = folder / f"{weights}.pt"
    try:
        content = read_tensors(path)
    except RunFolderError as error:
        raise ConfigError(str(error)) from error
    try:
        if "learners" in content:  # a checkpoint; the others hold what is predicted with, ready to be loaded
            networks = {name: _averaged(one) for name, one in content["learners"].items()}
            units = {name: one["units"] for name, one in content["learners"].items()}
        else:
            networks = {name: dict(one) for name, one in content.items() if name != "units"}
            units = dict(content.get("units", {}))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} holds no networks: it is not of a run") from error
    if not networks or not all(isinstance(value, Tensor) for one in networks.values() for value in one.values()):
        raise ConfigError(f"{path} holds no networks: it is not of a run")
    if learner is None and len(networks) > 1:
        raise ConfigError(f"{path} holds several networks: choose one with --network {'|'.join(networks)}")
    name = next(iter(networks)) if learner is None else learner
    if name not in networks:
        raise ConfigError(f"{path} has no network {name!r}; there are: {', '.join(networks)}")
    return name, networks[name], units.get(name)


def _averaged(learner: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of a learner's moving average, or of its network where it has none."""
    average = learner["ema"]
    if average is None:
        return dict(learner["network"])
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in average.items() if name.startswith(prefix)}


def _network(description: Mapping[str, Any], *, where: str) -> nn.Module:
    """Build the unpruned network that a description names, with fresh weights."""
    node = description["model"]
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{where} names no model")
    node = {**node, **{name: value for name, value in OWN_WEIGHTS.items() if name in node}}
    try:
        with torch.random.fork_rng(devices=[]):
            network = build(node, num_classes=description["num_classes"], image_shape=tuple(description["image_shape"]))
    except (InstantiationException, TypeError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"{where}: {node['_target_']} cannot be built as described ({reason})") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{where}: {node['_target_']} gave no network")
    return network


def _restored(description: Mapping[str, Any], state: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """Build the network, cut it to the units that are left, and load its tensors."""
    network = _network(description, where=where)
    if description["units"]:
        live = _live(description["units"], where=where)
        idle = {name: torch.zeros(len(indices), dtype=torch.bool) for name, indices in live.items()}
        units = units_of(network).in_mode(description["residual"])
        Surgeon(network, units).load_state_dict({"live": live, "idle": idle})
    load_weights(network, state, heads=(), source=where)
    if description["channels_last"]:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()


def _live(units: Any, *, where: str) -> dict[str, Tensor]:
    """Return the original indices of the units that are left, checked to be ascending lists with at least one each."""
    try:
        live = {str(name): torch.tensor(indices, dtype=torch.int64) for name, indices in units.items()}
        whole = all(one.dim() == 1 and len(one) and bool((one.diff() > 0).all()) for one in live.values())
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"{where}: the lists of units are damaged ({error})") from error
    if not whole:
        raise ConfigError(f"{where}: the lists of units are damaged (an index twice, or none)")
    return live


def _residual_mode(dense: nn.Module, live: Mapping[str, Tensor]) -> str:
    """Return the mode in which the network has the sets of units that `live` names."""
    units = units_of(dense)
    for mode in RESIDUAL_MODES:
        if _names(units.in_mode(mode)) == set(live):
            return mode
    raise ConfigError(
        f"the run's units ({', '.join(live)}) are not those that its model declares now ({', '.join(_names(units))})"
    )


def _names(units: Units) -> set[str]:
    return {one.name for one in units.sets}


def _sparsity(dense: nn.Module, network: nn.Module, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return sizes and costs: neuron sparsity (idle units count as dead), weight sparsity, parameters, FLOPs."""
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


def _read_json(path: Path, *, needed: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error})") from error
    missing = [name for name in needed if name not in content] if isinstance(content, dict) else list(needed)
    if missing:
        raise ConfigError(f"{path} is of another kind, or damaged: it has no {', '.join(missing)}")
    return content


def _targets(node: Any, where: str) -> Iterator[str]:
    """Yield every `_target_` in a model node. Raises `ConfigError` for references, which could read other things."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value, where)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, where)
    elif isinstance(node, str) and "${" in node:
        raise ConfigError(f"{where}: {node!r} refers to something outside of the file")


def _check_target(target: str, packages: Sequence[str], where: str) -> None:
    """Raise `ConfigError` unless `target` names something that a module of `packages` itself defines."""

    def inside(name: str) -> bool:
        return any(name == package or name.startswith(f"{package}.") for package in packages)

    mend = f"only constructors of {', '.join(packages)} are called; name further ones in load_pruned(packages=...)"
    if not inside(target):
        raise ConfigError(f"{where}: {target} is refused: {mend}")
    try:
        found = get_object(target)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: there is no {target} here ({error})") from error
    if not callable(found) or not inside(getattr(found, "__module__", "")):
        raise ConfigError(f"{where}: {target} is refused: {mend}")


def _is_channels_last(value: Tensor) -> bool:
    return value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
