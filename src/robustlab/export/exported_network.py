"""Load an exported network from its files, without its run, trusting only tensors and a description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from robustlab.config.build import build
from robustlab.config.layouts import node_in_todays_words
from robustlab.core.errors import ConfigError
from robustlab.models.units import units_of
from robustlab.models.weights import EXPORTED, load_weights
from robustlab.pruning.surgery import Surgeon

FORMAT = "robustlab-network-1"
TENSORS, DESCRIPTION = EXPORTED, "model.json"
OWN_WEIGHTS: Mapping[str, Any] = {"weights": None, "pretrained": False}
"""Arguments of models that would load other weights first -> their values when building an exported network."""


def load_pruned(folder: str | Path, *, packages: Sequence[str] = ("robustlab.models",)) -> nn.Module:
    """Return an exported network: a plain network with the remaining widths, in eval mode, on the CPU.

        robustlab export outputs/<run>/seed0                      # writes outputs/<run>/seed0/export
        network = load_pruned("outputs/<run>/seed0/export")
        logits = network((pixels - mean) / std)                   # pixels in [0, 1]; mean, std: see model.json

    Its logits equal the run's for the same images, (B, C, H, W) float32.

    - packages: packages that the model's constructor may come from; add yours for your own models.

    Raises `ConfigError` for missing, foreign or damaged files.
    """
    folder = Path(folder).expanduser()
    path = folder / DESCRIPTION
    needed = ("format", "model", "num_classes", "image_shape", "channels_last", "residual", "units", "sha256")
    description = read_json(path, needed=needed)
    if isinstance(description["model"], Mapping):
        description["model"] = node_in_todays_words(description["model"])
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
        raise ConfigError(f"{folder / TENSORS} is not a safetensors file ({error})") from error
    return restored(description, state, where=str(folder))


def described_network(description: Mapping[str, Any], *, where: str) -> nn.Module:
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
        raise ConfigError(f"{where}: {node['_target_']} did not return a network")
    return network


def restored(description: Mapping[str, Any], state: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """Build the network, cut it to the remaining units, and load its tensors."""
    network = described_network(description, where=where)
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
    """Return the original indices of the remaining units, checked to be non-empty ascending lists."""
    try:
        live = {str(name): torch.tensor(indices, dtype=torch.int64) for name, indices in units.items()}
        whole = all(one.dim() == 1 and len(one) and bool((one.diff() > 0).all()) for one in live.values())
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"{where}: the lists of units are damaged ({error})") from error
    if not whole:
        raise ConfigError(f"{where}: the lists of units are damaged (a duplicate index, or an empty list)")
    return live


def read_json(path: Path, *, needed: Sequence[str]) -> dict[str, Any]:
    """Return a JSON object that has the keys `needed`. Raises ConfigError for a missing, damaged or unrelated file."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error})") from error
    missing = [name for name in needed if name not in content] if isinstance(content, dict) else list(needed)
    if missing:
        raise ConfigError(f"{path} is not such a file, or damaged: it has no {', '.join(missing)}")
    return content


def _targets(node: Any, where: str) -> Iterator[str]:
    """Yield every `_target_` in a model node. Raises `ConfigError` for references, which could read anything."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value, where)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, where)
    elif isinstance(node, str) and "${" in node:
        raise ConfigError(f"{where}: {node!r} refers to something outside the file")


def _check_target(target: str, packages: Sequence[str], where: str) -> None:
    """Raise `ConfigError` unless `target` is defined in a module of `packages`."""

    def inside(name: str) -> bool:
        return any(name == package or name.startswith(f"{package}.") for package in packages)

    fix = f"only constructors from {', '.join(packages)} are called; allow more with load_pruned(packages=...)"
    if not inside(target):
        raise ConfigError(f"{where}: {target} is refused: {fix}")
    try:
        found = get_object(target)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: there is no {target} here ({error})") from error
    if not callable(found) or not inside(getattr(found, "__module__", "")):
        raise ConfigError(f"{where}: {target} is refused: {fix}")
