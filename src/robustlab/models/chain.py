"""Declare the removable units of a plain chain of layers: convolution or linear layer, norm, ReLU, repeated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from robustlab.models.units import FEATURES, Reader, Units, UnitSet

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def chain_units(layers: Iterable[tuple[str, nn.Module]]) -> Units:
    """Return one set per ReLU among `layers` (path, module), which are applied in order and end in the features.

    Sets are named conv1, conv2, ... and dense1, ... after the layer that writes them. If maps are flattened, in NCHW
    order, each unit owns as many columns of the next linear layer as a map has positions.
    """
    sets: list[UnitSet] = []
    counts = {"conv": 0, "dense": 0}
    name, width, writers = "", 0, []
    for path, layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            inputs = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
            if sets:
                sets[-1] = replace(sets[-1], readers=(Reader(path, inputs // sets[-1].width),))
            kind = "conv" if isinstance(layer, nn.Conv2d) else "dense"
            counts[kind] += 1
            name, writers = f"{kind}{counts[kind]}", [path]
            width = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        elif isinstance(layer, NORMS):
            writers.append(path)
        elif isinstance(layer, nn.ReLU):
            sets.append(UnitSet(name, width, (path,), tuple(writers), (Reader(FEATURES),)))
    return Units(tuple(sets))
