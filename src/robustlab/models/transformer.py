"""The units of timm's transformers (and of whatever else is made of `timm.layers.Mlp`)."""

from __future__ import annotations

from torch import nn

from robustlab.models.units import Reader, Units, UnitSet


def mlp_units(trunk: nn.Module) -> Units:
    """Return one set per `timm.layers.Mlp` in `trunk`: its hidden units, fc1 -> activation -> fc2, and nothing else.

    Named after the module. A hidden layer has its units in the last axis of [B, tokens, units] or [B, H, W, units], or
    in axis 1 where timm makes it of 1x1 convolutions. The stream between the blocks is normalised over the units, so
    it stays whole, as do the widths of attention (DemP, section 4.1). Without such a module there is no set.
    """
    from timm.layers.mlp import Mlp

    sets = []
    for path, layer in trunk.named_modules():
        if isinstance(layer, Mlp):
            width = layer.fc1.out_channels if isinstance(layer.fc1, nn.Conv2d) else layer.fc1.out_features
            norm = () if isinstance(layer.norm, nn.Identity) else (f"{path}.norm",)
            writers = (f"{path}.fc1", *norm)
            sets.append(UnitSet(path, int(width), (f"{path}.act",), writers, (Reader(f"{path}.fc2"),)))
    return Units(tuple(sets))
