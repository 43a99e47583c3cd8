"""DemP's VGG-16."""

import pytest
import torch
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.models.vgg import vgg16


def test_layers_are_those_of_the_description():
    with torch.device("meta"):
        network = vgg16(num_classes=10, image_shape=(3, 64, 64))
    kinds = {nn.Conv2d: "conv", nn.Linear: "dense", nn.MaxPool2d: "max", nn.AvgPool2d: "average"}
    layers = [(kinds[type(layer)], layer) for layer in network.modules() if type(layer) in kinds]
    widths = [layer.out_channels for kind, layer in layers if kind == "conv"]
    assert widths == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 1024]
    order = "conv conv max conv conv max conv conv conv max conv conv conv max conv conv conv average dense dense dense"
    assert [kind for kind, _ in layers] == order.split()
    assert [layer.out_features for kind, layer in layers if kind == "dense"] == [4096, 4096, 10]
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [*widths, 4096, 4096]


@pytest.mark.parametrize(("side", "count"), [(64, 50_691_018), (32, 38_108_106)])
def test_parameter_counts(side, count):
    with torch.device("meta"):
        network = vgg16(num_classes=10, image_shape=(3, side, side))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(
    ("shape", "pool", "inputs"),
    [((1, 32, 32), 2, 32), ((3, 64, 64), 2, 128), ((3, 64, 48), 1, 384), ((3, 50, 99), None, 32)],
)
def test_maps_are_flattened_after_the_average_pool(shape, pool, inputs):
    network = vgg16(num_classes=7, image_shape=shape, width=2, dense=[6, 5], pool=pool, proj_dim=4).eval()
    dense = network.trunk.get_submodule("dense.0")
    assert isinstance(dense, nn.Linear)
    assert dense.in_features == inputs
    projection, logits = network(torch.randn(2, *shape), project=True)
    assert (projection.shape, logits.shape, network.feature_dim) == ((2, 4), (2, 7), 5)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 16, 16), {}, r"halved 4 times, to 1x1.*model\.pool=2"),
        ((3, 64, 8), {"pool": None}, "to 4x0"),
        ((3, 64, 64), {"dense": []}, "at least one dense layer"),
        ((3, 64, 64), {"width": 0}, "all widths positive"),
    ],
)
def test_wrong_options_are_named(shape, options, message):
    with pytest.raises(ConfigError, match=message):
        vgg16(num_classes=10, image_shape=shape, **options)
