"""Helpers for tests of surgery: a small network with units, units killed by hand, and parameters counted by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robustlab.models.heads import TwoHeads
from robustlab.models.skip import Selector
from robustlab.models.units import FEATURES, Reader, Skip, Units, UnitSet
from robustlab.pruning.surgery import Surgeon

DEPTH = 1e3
"""How far below zero units are pushed: they are dead under batch statistics, too, and whatever a skip adds."""


class TinyTrunk(nn.Module):
    """Convolution, residual block with an identity skip, flattened map: float [B, 2, 4, 4] to [B, 6 * 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(6)
        self.conv1 = nn.Conv2d(6, 5, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 6, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(6)
        self.skip = Selector()
        self.stem_act, self.act1, self.act2 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem_act(self.stem_norm(self.stem(images)))
        hidden = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.skip(x, self.norm2(self.conv2(hidden)))).flatten(1)

    def units(self) -> Units:
        return Units(
            (
                UnitSet("stem", 6, ("stem_act",), ("stem", "stem_norm"), (Reader("conv1"),), residual=True),
                UnitSet("inner", 5, ("act1",), ("conv1", "norm1"), (Reader("conv2"),)),
                UnitSet("out", 6, ("act2",), ("conv2", "norm2"), (Reader(FEATURES, columns=16),), residual=True),
            ),
            (Skip("skip", "stem", "out"),),
        )


class Tiny(TwoHeads):
    """`TinyTrunk` with its heads: 5 classes, 3 projected features."""

    def __init__(self) -> None:
        super().__init__(TinyTrunk(), feature_dim=96, num_classes=5, proj_dim=3)

    def units(self) -> Units:
        return self.trunk.units().within("trunk", heads=["classifier", "projection.0"])


def tiny(seed: int = 0) -> Tiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return stirred(Tiny())


def stirred(network: nn.Module) -> nn.Module:
    """Give norms values that differ from unit to unit."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.4),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                nn.init.uniform_(tensor, low, high)
    return network


def images(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_dead(units: Units, *, share: float = 0.3, seed: int = 2) -> dict[str, Tensor]:
    """A mask for every set: `share` of its units, at least one and never all."""
    generator = torch.Generator().manual_seed(seed)
    dead = {}
    for one in units.sets:
        count = min(max(round(share * one.width), 1), one.width - 1)
        dead[one.name] = torch.zeros(one.width, dtype=torch.bool)
        dead[one.name][torch.randperm(one.width, generator=generator)[:count]] = True
    return dead


@torch.no_grad()
def kill(network: nn.Module, units: Units, dead: Mapping[str, Tensor]) -> None:
    """Make units dead on any input: all that writes them becomes a constant far below zero."""
    for name, mask in dead.items():
        writers = [network.get_submodule(path) for path in units[name].writers]
        norms = [one for one in writers if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)]
        for module in norms or writers:
            assert isinstance(module.weight, Tensor)
            assert isinstance(module.bias, Tensor)
            module.weight[mask] = 0.0
            module.bias[mask] = -DEPTH


def count_by_hand(network: nn.Module, units: Units, widths: Mapping[str, int]) -> int:
    """Parameters of the unpruned `network` when its sets had these widths, from the shapes alone."""
    shapes = {name: list(parameter.shape) for name, parameter in network.named_parameters()}
    for one in units.sets:
        for path in one.writers:
            for name in (f"{path}.weight", f"{path}.bias"):
                if name in shapes:
                    shapes[name][0] = widths[one.name]
        for reader in one.readers:
            shapes[f"{reader.module}.weight"][1] = widths[one.name] * reader.columns
    return sum(math.prod(shape) for shape in shapes.values())


def assert_consistent(surgeon: Surgeon) -> None:
    """Live maps, tensors, modules and optimizer agree with each other."""
    network, units = surgeon.network, surgeon.units
    for one in units.sets:
        live, idle = surgeon.live[one.name], surgeon.idle[one.name]
        width = len(live)
        assert width >= min(surgeon.min_width, one.width)
        assert live.tolist() == sorted(set(live.tolist()) & set(range(one.width)))
        assert idle.shape == live.shape
        for place in (network, *surgeon.copies):
            for path in one.writers:
                module = place.get_submodule(path)
                tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
                rows = {len(tensor) for tensor in tensors if tensor.dim()}
                said = {getattr(module, name, width) for name in ("num_features", "out_channels", "out_features")}
                assert rows == said == {width}
            for reader in one.readers:
                module = place.get_submodule(reader.module)
                said = {getattr(module, name, None) for name in ("in_channels", "in_features")} - {None}
                assert said == {module.get_parameter("weight").shape[1]} == {width * reader.columns}
    if surgeon.optimizer is not None:
        assert_healthy(surgeon.optimizer, network)


def assert_healthy(optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
    """Every trainable parameter is in exactly one group; state belongs to parameters and has their shapes."""
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    wanted = [id(parameter) for parameter in network.parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(wanted)
    for parameter, state in optimizer.state.items():
        assert id(parameter) in wanted
        shapes = {value.shape for value in state.values() if isinstance(value, Tensor) and value.dim()}
        assert shapes <= {parameter.shape}
