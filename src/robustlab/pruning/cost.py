"""Measure the cost of a network: parameters, and FLOPs both as executed and in the paper's convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robustlab.models.units import Units

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers counted by the paper's convention."""


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters: norms, biases and heads, but not buffers or skip selectors."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def forward_flops(network: nn.Module, image_shape: Sequence[int]) -> int:
    """Return the FLOPs (2 per multiply-add) of the forward pass of one image through the current network.

    Counts convolutions and matrix products, including attention, but not norms, activations and sums.

    - image_shape: (C, H, W).
    """
    return _count(network, image_shape).get_total_flops()


def layer_flops(network: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """Return path -> FLOPs of one image, for each convolution and linear layer."""
    return _by_layer(network, _count(network, image_shape))


@dataclass(frozen=True)
class Cost:
    """The cost of an unpruned network, the reference for a pruned one.

    - parameters: number of trainable parameters.
    - flops: FLOPs of one image's forward pass.
    - layers: path -> FLOPs of each convolution and linear layer.
    - owners: path -> unit set of the layer's output; layers whose output is never pruned are absent.
    - inputs: path -> unit set of the layer's input.
    - sizes: (elements, output set, input set) of each trainable parameter.
    - widths: set -> number of units.
    """

    parameters: int
    flops: int
    layers: Mapping[str, int]
    owners: Mapping[str, str]
    inputs: Mapping[str, str]
    sizes: Sequence[tuple[int, str | None, str | None]]
    widths: Mapping[str, int]

    @classmethod
    def of(cls, network: nn.Module, image_shape: Sequence[int], units: Units) -> Cost:
        """Measure a network from which nothing has been removed yet."""
        counter = _count(network, image_shape)
        layers = _by_layer(network, counter)
        writes = {path: one.name for one in units.sets for path in one.writers}
        reads = {reader.module: one.name for one in units.sets for reader in one.readers}
        owners = {path: name for path, name in writes.items() if path in layers}
        sizes = [
            (parameter.numel(), writes.get(path), reads.get(path) if name == "weight" else None)
            for path, module in network.named_modules()
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        ]
        widths = {one.name: one.width for one in units.sets}
        return cls(parameters(network), counter.get_total_flops(), layers, owners, reads, sizes, widths)

    def flops_at(self, widths: Mapping[str, int]) -> int:
        """Return the network's FLOPs when its sets have the given widths; sets not listed are unpruned.

        Operations other than convolutions and linear layers (attention) involve no units and cost the same as before.
        """
        ends = [(flops, self.owners.get(path), self.inputs.get(path)) for path, flops in self.layers.items()]
        return self.flops - sum(self.layers.values()) + self._scaled(ends, widths)

    def parameters_at(self, widths: Mapping[str, int]) -> int:
        """Return the network's number of trainable parameters when its sets have the given widths."""
        return self._scaled(self.sizes, widths)

    def _scaled(self, parts: Sequence[tuple[int, str | None, str | None]], widths: Mapping[str, int]) -> int:
        total = 0
        for size, *names in parts:
            for name in names:
                if name is not None:
                    size = size * widths.get(name, self.widths[name]) // self.widths[name]
            total += size
        return total

    def author_flops(self, live_share: Mapping[str, float] | None = None) -> float:
        """Return FLOPs as counted by the paper's code: the sum over layers of dense FLOPs * (share of live outputs).

        Savings on the input side are ignored, so this overstates the cost: at half width everywhere it gives 0.50 of
        the dense FLOPs although only a quarter of the work is done.

        - live_share: set -> live units over all units; missing sets, and layers without one such as the classifier,
          count as unpruned.
        """
        share = live_share or {}
        return sum(flops * share.get(self.owners.get(path, ""), 1.0) for path, flops in self.layers.items())

    def flops_ratio(self, live_share: Mapping[str, float]) -> float:
        """Return `author_flops` relative to the unpruned network."""
        return self.author_flops(live_share) / self.author_flops()

    def weight_sparsity(self, network: nn.Module) -> float:
        """Return 1 - parameters of `network` / parameters of the unpruned one."""
        return 1 - parameters(network) / self.parameters


def _count(network: nn.Module, image_shape: Sequence[int]) -> FlopCounterMode:
    """Run one image through the network on the "meta" device, which only propagates shapes."""
    weights = {
        name: value.detach().to("meta") for name, value in [*network.named_parameters(), *network.named_buffers()]
    }
    image = torch.empty(1, *image_shape, device="meta")
    modes = {module: module.training for module in network.modules()}
    counter = FlopCounterMode(display=False)
    network.eval()  # norms in train mode reject a single value per channel
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), counter:
            torch.func.functional_call(network, weights, (image,))
    finally:
        for module, training in modes.items():
            module.training = training
    return counter


def _by_layer(network: nn.Module, counter: FlopCounterMode) -> dict[str, int]:
    counts, root = counter.get_flop_counts(), type(network).__name__
    layers = [path for path, module in network.named_modules() if isinstance(module, LAYERS)]
    return {path: sum(counts.get(f"{root}.{path}" if path else root, {}).values()) for path in layers}
