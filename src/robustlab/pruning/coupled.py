"""Norms over all parameters a unit is coupled to (DepGraph: Fang et al., CVPR 2023), for Torch-Pruning's GroupNorm.

torch-pruning finds the coupled layers and ranks the units; sparse training is implemented here over the declared units,
because the library's version synchronises with the device for every group in every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustlab.core.errors import ConfigError
from robustlab.core.invocation import extra_hint
from robustlab.models.units import Units, UnitSet
from robustlab.pruning.scores import Scores, evaluating

NORMALIZERS = ("max", "mean")


def torch_pruning() -> ModuleType:
    """Return the library. Raises `ConfigError` if it is not installed."""
    try:
        import torch_pruning as library
    except ImportError as error:
        raise ConfigError(
            f"method=group_norm needs torch-pruning, which is not installed; run: {extra_hint('pruning')}"
        ) from error
    return library


def coupled_scores(network: nn.Module, units: Units, example: Tensor, *, normalizer: str) -> Scores:
    """Return torch-pruning's `GroupMagnitudeImportance(p=2)` of each unit.

    This is the mean over the coupled layers of the squares of the unit's outgoing and incoming weights and scales,
    divided by the set's maximum ("max") or mean.

    - example: (1, C, H, W) float, to trace the network with.

    Raises `ConfigError` if the library couples other layers than the units declare, as it does if skips of residual
    blocks are to lose individual channels.
    """
    library = torch_pruning()
    importance = library.importance.GroupMagnitudeImportance(p=2, normalizer=normalizer)
    with evaluating(network), torch.enable_grad():
        graph = library.DependencyGraph().build_dependency(
            network, example_inputs=example, forward_fn=lambda model, images: model.forward(images), verbose=False
        )
    found: Scores = {}
    for one in units.sets:
        modules = [network.get_submodule(path) for path in one.writers]
        root = next(module for module in modules if not isinstance(module, _BatchNorm))
        cut = library.prune_linear_out_channels if isinstance(root, nn.Linear) else library.prune_conv_out_channels
        group = graph.get_pruning_group(root, cut, list(range(len(root.get_parameter("weight")))))
        _check_coupling(network, one, group, graph)
        found[one.name] = importance(group)
    return found


def _check_coupling(network: nn.Module, one: UnitSet, group: Any, graph: Any) -> None:
    """Refuse couplings with undeclared layers, ignoring layers that the traced forward does not use."""
    name = {module: path for path, module in network.named_modules()}
    used = {name[module] for module in graph.module2node if module in name}
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for item in group:
        if isinstance(item.dep.layer, nn.Linear | nn.Conv2d | _BatchNorm):
            reads = graph.is_in_channel_pruning_fn(item.dep.pruning_fn)
            found[reads and not isinstance(item.dep.layer, _BatchNorm)].add(name[item.dep.layer])
    declared = {True: used & {reader.module for reader in one.readers}, False: used & set(one.writers)}
    if found != declared:
        others = sorted((found[True] ^ declared[True]) | (found[False] ^ declared[False]))
        raise ConfigError(
            f"method=group_norm: torch-pruning couples the units {one.name} with other layers than the model declares "
            f"({', '.join(others)}); use method.surgery.residual=stage_shared or inner_only, or exclude the set: "
            f"method.surgery.exclude=[{one.name}]"
        )


@torch.no_grad()
def group_norms(network: nn.Module, units: Units) -> Scores:
    """Return the L2 norm of all weights and normalisation scales coupled to each unit, (current width,) float."""
    return {
        one.name: torch.stack(
            [weight.pow(2).reshape(len(weight), -1).sum(dim=1) for weight, _ in _coupled(network, one)]
        )
        .sum(dim=0)
        .sqrt()
        for one in units.sets
    }


@torch.no_grad()
def add_group_shrinkage(network: nn.Module, units: Units, *, strength: float, alpha: float) -> None:
    """Add strength * a * w to the gradients of all weights coupled to a unit, without synchronising with the device.

    a = alpha^((max I - I) / (max I - min I)), where I is the unit's group norm and the extremes are over its set: from
    1 for the largest unit to `alpha` for the smallest. Biases and offsets are not penalised; weights without a gradient
    are skipped. If all units of a set have the same norm, a = 1, where the library would divide by 0.

    Source: `GroupNormPruner.regularize` of torch-pruning 1.6.
    """
    for name, norms in group_norms(network, units).items():
        spread = norms.max() - norms.min()
        rank = torch.where(spread > 0, (norms.max() - norms) / spread, torch.zeros_like(norms))
        factors = strength * alpha**rank
        for weight, gradient in _coupled(network, units[name]):
            if gradient is not None:
                gradient.add_(weight * factors.view(-1, *[1] * (weight.dim() - 1)))


def _coupled(network: nn.Module, one: UnitSet) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield views of all weights coupled to a set and of their gradients, with the units as axis 0."""
    for path in one.writers:
        weight = network.get_submodule(path).weight
        if weight is not None:
            assert isinstance(weight, Tensor)
            yield weight.detach(), weight.grad
    for reader in one.readers:
        weight = network.get_submodule(reader.module).get_parameter("weight")
        shape = (-1, reader.columns)
        gradient = None if weight.grad is None else weight.grad.transpose(0, 1).unflatten(0, shape)
        yield weight.detach().transpose(0, 1).unflatten(0, shape), gradient
