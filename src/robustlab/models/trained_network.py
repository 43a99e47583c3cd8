"""The network that a run predicts with, read from its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.core.tensor_files import read_tensors


def trained_network(
    run: Path, weights: str, learner: str | None
) -> tuple[str, dict[str, Tensor], dict[str, Any] | None]:
    """Return the name and state of the network that a run predicts with, and the units that are left of it."""
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
        if "learners" in content:  # a checkpoint; other files directly contain the prediction weights
            networks = {name: _averaged(one) for name, one in content["learners"].items()}
            units = {name: one["units"] for name, one in content["learners"].items()}
        else:
            networks = {name: dict(one) for name, one in content.items() if name != "units"}
            units = dict(content.get("units", {}))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} contains no networks: it was not written by a run") from error
    if not networks or not all(isinstance(value, Tensor) for one in networks.values() for value in one.values()):
        raise ConfigError(f"{path} contains no networks: it was not written by a run")
    if learner is None and len(networks) > 1:
        raise ConfigError(
            f"{path} contains several networks: choose one with --network {'|'.join(networks)} of `robustlab export`"
        )
    name = next(iter(networks)) if learner is None else learner
    if name not in networks:
        raise ConfigError(f"{path} has no network {name!r}; there are: {', '.join(networks)}")
    return name, networks[name], units.get(name)


def _averaged(learner: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of a learner's moving average, or of its network if it has none."""
    average = learner["ema"]
    if average is None:
        return dict(learner["network"])
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in average.items() if name.startswith(prefix)}
