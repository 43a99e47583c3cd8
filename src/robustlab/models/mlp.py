"""A multi-layer perceptron on flattened images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.models.chain import chain_units
from robustlab.models.heads import TwoHeads
from robustlab.models.layers import choose
from robustlab.models.units import Units
from robustlab.models.weights import started_from


class MLPTrunk(nn.Sequential):
    """The hidden layers: inputs with prod(image_shape) values per example to (B, widths[-1]) float."""

    def units(self) -> Units:
        """Declare the units of each hidden layer."""
        return chain_units(self.named_children())


def mlp(
    *,
    num_classes: int,
    image_shape: tuple[int, ...],
    proj_dim: int | None = None,
    weights: str | None = None,
    widths: Sequence[int] = (256, 256),
    norm: str = "batch",
) -> TwoHeads:
    """Return Linear -> norm -> ReLU for each of `widths`, then the heads; `norm` is "batch", "layer" or "none".

    `image_shape` may be of any rank: inputs are flattened. Raises `ConfigError` for no or empty layers.
    weights: see `started_from`.
    """
    if not widths or min(widths) < 1:
        raise ConfigError(f"model.widths={list(widths)}: an MLP needs at least one hidden layer of positive width")
    choose(norm, ("batch", "layer", "none"), name="model.norm")
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = prod(image_shape)
    for width in widths:
        layers.append(nn.Linear(inputs, width))
        if norm != "none":
            layers.append(nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width))
        layers.append(nn.ReLU())
        inputs = width
    network = TwoHeads(MLPTrunk(*layers), feature_dim=inputs, num_classes=num_classes, proj_dim=proj_dim)
    return started_from(network, weights)
