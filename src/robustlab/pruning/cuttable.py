"""Refuse units that cannot be cut, before anything is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from robustlab.core.errors import ConfigError
from robustlab.models.units import Units


def check_settings(units: Units, *, min_width: int, round_to: int, exclude: Sequence[str]) -> None:
    """Raise `ConfigError` for widths below 1 and for names in `exclude` that match no set."""
    for name, value in (("min_width", min_width), ("round_to", round_to)):
        if value < 1:
            raise ConfigError(f"method.surgery.{name}={value}; it must be at least 1")
    names = [one.name for one in units.sets]
    for unknown in sorted(set(exclude) - set(names)):
        near = get_close_matches(unknown, names, n=3, cutoff=0.3)
        hint = f"; did you mean {', '.join(near)}?" if near else f"; it has {', '.join(names)}"
        raise ConfigError(f"method.surgery.exclude: the network has no set of units {unknown!r}{hint}")


def check_units(network: nn.Module, units: Units, *, exclude: Sequence[str]) -> None:
    """Raise `ConfigError` if a set that is not in `exclude` touches a module that cannot be cut."""
    places = Counter(id(one) for _, one in network.named_parameters(remove_duplicate=False))
    sets = [one for one in units.sets if one.name not in exclude]
    for paths in ([path for one in sets for path in one.writers], [r.module for one in sets for r in one.readers]):
        assert len(set(paths)) == len(paths), "an axis of a module belongs to one set"
    for one in sets:
        for path in one.paths:
            module = network.get_submodule(path)
            _check_module(module, path)
            if any(places[id(parameter)] > 1 for parameter in module.parameters(recurse=False)):
                raise ConfigError(f"{path} shares a parameter with another module; cutting one would untie them")
        for path in one.writers:
            module = network.get_submodule(path)
            width = module.num_features if isinstance(module, _BatchNorm) else len(module.get_parameter("weight"))
            assert width == one.width, f"{path} writes {width} channels, not the {one.width} units of {one.name}"
        for reader in one.readers:
            columns = network.get_submodule(reader.module).get_parameter("weight").shape[1]
            assert columns == one.width * reader.columns, f"{reader.module} does not fit the units of {one.name}"


def _check_module(module: nn.Module, path: str) -> None:
    """Refuse modules that are grouped, parametrised, sharded, or of an unknown type."""
    if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | _BatchNorm):
        raise ConfigError(
            f"{path} is a {type(module).__name__}; units can be cut out of linear layers, convolutions and BatchNorm. "
            "Choose another model, or list the set of units in method.surgery.exclude"
        )
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups != 1:
        raise ConfigError(
            f"{path} is a convolution with {module.groups} groups, which ties its channels together; adjacent units "
            "cannot be removed one by one. List the set in method.surgery.exclude, or choose another model"
        )
    if parametrize.is_parametrized(module):
        raise ConfigError(f"{path} computes its weight from other parameters (a parametrization), which cannot be cut")
    for name, parameter in module.named_parameters(recurse=False):
        if type(parameter) is not nn.Parameter:
            raise ConfigError(
                f"{path}.{name} is a {type(parameter).__name__}: sharded or lazy parameters cannot be cut. Train with "
                "whole copies of the network on each rank, as torchrun with `train` does"
            )


def check_state(optimizer: torch.optim.Optimizer, module: nn.Module, path: str) -> None:
    """Raise `ConfigError` if the optimizer holds state for a module's parameters that cannot be cut along with them.

    Tensors of the parameter's shape can be cut in the same way, and scalars (step counts) stay.
    """
    for name, parameter in module.named_parameters(recurse=False):
        for key, value in optimizer.state.get(parameter, {}).items():
            if not _can_be_cut(value, parameter):
                shape = f"of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise ConfigError(
                    f"optimizer: {type(optimizer).__name__} keeps '{key}', {shape}, for {path}.{name} of shape "
                    f"{list(parameter.shape)}, which cannot be cut along with the units; choose an optimizer "
                    "whose state has the parameter's shape (optimizer=sgd, adam, adamw), or set "
                    "method.surgery.enabled=false"
                )


def _can_be_cut(value: Any, parameter: nn.Parameter) -> bool:
    if isinstance(value, Tensor):
        return value.shape == parameter.shape or value.numel() == 1
    return value is None or isinstance(value, bool | int | float | str)
