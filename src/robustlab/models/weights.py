"""Read a local weights file and load it strictly into a network; heads that do not fit start fresh, with a note."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.models.trained_network import trained_network

Network = TypeVar("Network", bound=nn.Module)

EXPORTED = "model.safetensors"
HEADS = ("classifier", "projection")
"""Parts of `TwoHeads` that start fresh where a file has them in another size."""

# Where training scripts commonly keep the network in what they save.
WRAPPERS = ("state_dict", "model_state_dict", "model", "network")


def read_weights(path: str | Path, *, key: str = "model.weights") -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of what `torch.save` wrote (read with weights_only=True).

    A state dict inside a checkpoint is found, and the prefix "module." of DataParallel is taken off. path: may also be
    the folder of a finished run, whose last network is taken (its moving average where it has one), or one that
    `robustlab export` wrote. key: the setting that names the file, for errors. Raises `ConfigError` where it is
    missing, unreadable, or holds no state dict.
    """
    file = Path(path).expanduser()
    if (file / EXPORTED).is_file():
        file = file / EXPORTED
    elif (file / "checkpoints").is_dir():
        return trained_network(file, "last", None)[1]
    if not file.is_file():
        raise ConfigError(f"{key}: there is no file {file}")
    content = _read(file, key)
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"{key}: {file} holds no state dict (a mapping from names to tensors)")
    prefix = "module." if content and all(str(name).startswith("module.") for name in content) else ""
    return {str(name).removeprefix(prefix): value for name, value in content.items()}


def _read(file: Path, key: str) -> Any:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{key}: {file} is not a file of tensors and plain types only, and loading anything else could run "
            f"foreign code; save the state dict alone: torch.save(network.state_dict(), ...)"
        ) from error
    except Exception as error:  # safetensors, zipfile and torch raise many kinds for a damaged file
        raise ConfigError(f"{key}: {file} cannot be read: {error}") from error


def started_from(network: Network, weights: str | None) -> Network:
    """Return the network with the weights of a file or finished run, or as it is where none is named.

    Raises `ConfigError` as `read_weights` and `load_weights` do.
    """
    if weights is not None:
        load_weights(network, read_weights(weights), heads=HEADS, source=f"model.weights {weights}")
    return network


def load_weights(network: nn.Module, state: Mapping[str, Tensor], *, heads: Sequence[str], source: str) -> None:
    """Load `state` into `network`, every name and shape matching, except for the modules named in `heads`.

    A head that the file lacks, or has in another size, keeps its fresh weights, and a printed note says so; one that
    the network lacks is left out. `source` names the file in messages. Raises `ConfigError` that
    lists what else does not match.
    """
    own = network.state_dict()
    given = dict(state)
    for head in heads:
        mine = {name: value.shape for name, value in own.items() if name.startswith(f"{head}.")}
        theirs = {name: value.shape for name, value in given.items() if name.startswith(f"{head}.")}
        if mine == theirs:
            continue
        given = {name: value for name, value in given.items() if name not in theirs}
        given |= {name: own[name] for name in mine}
        if mine:
            print(f"note: {source} does not fit the head '{head}' of this network; it starts from fresh weights")
    problems = _mismatches(own, given)
    if problems:
        shown = "\n  ".join(problems[:12] + ([f"... and {len(problems) - 12} more"] if len(problems) > 12 else []))
        raise ConfigError(f"{source} does not match the network in {len(problems)} of its entries:\n  {shown}")
    network.load_state_dict(given)


def _mismatches(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [f"missing: {name} {list(own[name].shape)}" for name in own if name not in given]
    unexpected = [f"unexpected: {name} {list(given[name].shape)}" for name in given if name not in own]
    shapes = [
        f"other shape: {name} is {list(given[name].shape)}, the network has {list(own[name].shape)}"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    return missing + unexpected + shapes
