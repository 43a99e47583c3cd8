"""What a network costs: parameters, and floating-point operations in the paper's convention and as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robustlab.models.units import Units

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""The layers that the paper's convention counts."""


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters: norms, biases and heads are in, buffers and skip selectors are not."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def forward_flops(network: nn.Module, image_shape: Sequence[int]) -> int:
    """Return the FLOPs (2 per multiply-add) of the forward pass of one image [C, H, W] through the network as it is.

    Counted are convolutions and matrix products, attention included; norms, activations and sums are not.
    """
    return _count(network, image_shape).get_total_flops()


def layer_flops(network: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """Return the FLOPs of one image in each convolution and linear layer, by the layer's path."""
    return _by_layer(network, _count(network, image_shape))


@dataclass(frozen=True)
class Cost:
    """The cost of an unpruned network, which that of a pruned one is held against.

    parameters: trainable ones. flops: of one image forward. layers: FLOPs of each convolution and linear layer by
    path. owners: the unit set that is the output of a layer, by path; layers whose output is never pruned are absent.
    inputs: likewise the set that a layer reads. sizes: (elements, output set, input set) of each trainable parameter.
    widths: units of each set.
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
        """Return the FLOPs of the network when its sets have these widths, by name; those left out are whole.

        What is no convolution or linear layer (attention) has no unit in it and costs what it did.
        """
        ends = [(flops, self.owners.get(path), self.inputs.get(path)) for path, flops in self.layers.items()]
        return self.flops - sum(self.layers.values()) + self._scaled(ends, widths)

    def parameters_at(self, widths: Mapping[str, int]) -> int:
        """Return the trainable parameters of the network when its sets have these widths."""
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
        """Return FLOPs as the paper's code counts them: sum over layers of dense FLOPs * (share of live outputs).

        live_share: live units over all units, by set; a set that is not there counts as whole, and so does a layer
        without one, such as the classifier. What is saved on the input side is left out, so this overstates the cost:
        at half width everywhere it is 0.50 of the dense FLOPs where a quarter of the work is done.
        """
        share = live_share or {}
        return sum(flops * share.get(self.owners.get(path, ""), 1.0) for path, flops in self.layers.items())

    def flops_ratio(self, live_share: Mapping[str, float]) -> float:
        """Return `author_flops` over that of the unpruned network."""
        return self.author_flops(live_share) / self.author_flops()

    def weight_sparsity(self, network: nn.Module) -> float:
        """Return 1 - parameters of `network` / parameters of the unpruned one."""
        return 1 - parameters(network) / self.parameters


def _count(network: nn.Module, image_shape: Sequence[int]) -> FlopCounterMode:
    """Run one image through the network on the "meta" device, where shapes are followed and nothing is computed."""
    weights = {
        name: value.detach().to("meta") for name, value in [*network.named_parameters(), *network.named_buffers()]
    }
    image = torch.empty(1, *image_shape, device="meta")
    modes = {module: module.training for module in network.modules()}
    counter = FlopCounterMode(display=False)
    network.eval()  # norms in training mode refuse a single value per channel
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
