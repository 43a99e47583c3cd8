"""The project's own networks: published counts, shapes, and the arithmetic of the pre-activation block."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.models.mlp import mlp
from robustlab.models.preact_resnet import PreActBlock, PreActTrunk, preact_resnet18, wide_resnet
from robustlab.models.resnet import cifar_resnet
from robustlab.models.small_cnn import small_cnn

RGB = (3, 32, 32)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("builder", "options", "count"),
    [
        (preact_resnet18, {"num_classes": 10, "proj_dim": 128}, 11_237_194),  # CrossSplit's network
        (preact_resnet18, {"num_classes": 100, "proj_dim": 128}, 11_283_364),
        (preact_resnet18, {"num_classes": 10}, 11_171_274),
        (preact_resnet18, {"num_classes": 10, "final_bn": True}, 11_172_298),
        (cifar_resnet, {"num_classes": 10}, 11_173_962),
        (cifar_resnet, {"num_classes": 10, "depth": 34, "proj_dim": 128}, 21_348_042),
        (wide_resnet, {"num_classes": 10, "depth": 28, "widen": 10}, 36_479_194),
        (wide_resnet, {"num_classes": 10, "depth": 10, "widen": 1}, 77_850),
        (wide_resnet, {"num_classes": 10, "depth": 10, "widen": 1, "proj_dim": 128}, 86_426),
    ],
)
def test_parameter_counts(builder, options, count):
    with torch.device("meta"):
        assert parameters(builder(image_shape=RGB, **options)) == count


def test_small_cnn_parameter_count_is_the_documented_one():
    assert parameters(small_cnn(num_classes=10, image_shape=(1, 8, 8))) == 94_186


@pytest.mark.parametrize("builder", [preact_resnet18, cifar_resnet, small_cnn, mlp])
@pytest.mark.parametrize("shape", [(1, 32, 32), RGB])
def test_outputs_have_the_promised_shapes(builder, shape):
    network = builder(num_classes=7, image_shape=shape, proj_dim=16)
    images = torch.randn(3, *shape)
    projection, logits = network(images, project=True)
    assert projection.shape == (3, 16)
    assert logits.shape == (3, 7)
    assert network.features(images).shape == (3, network.feature_dim)
    assert isinstance(network.classifier, nn.Linear)
    assert network.classifier.in_features == network.feature_dim
    network.eval()
    assert torch.equal(network(images), network(images, project=True)[1])


def test_preact_maps_are_4x4_at_32_pixels_and_pooling_stays_4x4_at_64():
    with torch.device("meta"):
        trunk = preact_resnet18(num_classes=10, image_shape=RGB).trunk
        assert isinstance(trunk, PreActTrunk)
        assert trunk.maps(torch.empty(2, *RGB)).shape == (2, 512, 4, 4)
        larger = preact_resnet18(num_classes=200, image_shape=(3, 64, 64), proj_dim=128)
        assert larger.classifier.in_features == 2048
        assert larger(torch.empty(2, 3, 64, 64)).shape == (2, 200)


@pytest.mark.parametrize("size", [28, 30, 33, 40])
def test_preact_feature_dim_is_right_for_sizes_that_do_not_halve_evenly(size):
    with torch.device("meta"):
        network = preact_resnet18(num_classes=10, image_shape=(1, size, size))
        assert network.features(torch.empty(2, 1, size, size)).shape == (2, network.feature_dim)


def test_preact_refuses_images_too_small_to_pool_and_takes_them_with_global_pooling():
    with pytest.raises(ConfigError, match=r"model\.pool=null"):
        preact_resnet18(num_classes=10, image_shape=(1, 8, 8))
    network = preact_resnet18(num_classes=10, image_shape=(1, 8, 8), width=4, pool=None).eval()
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def block_by_hand(block: PreActBlock, x, *, raw: bool):
    """The block's formula on its own parameters, BatchNorm in train mode."""

    def norm(layer, value):
        mean = value.mean(dim=(0, 2, 3), keepdim=True)
        variance = value.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
        return (value - mean) / (variance + 1e-5).sqrt() * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)

    h = norm(block.norm1, x).clamp(min=0)
    stride = block.conv1.stride[0]
    hidden = F.conv2d(h, block.conv1.weight, stride=stride, padding=1)
    out = F.conv2d(norm(block.norm2, hidden).clamp(min=0), block.conv2.weight, padding=1)
    if block.shortcut is not None:
        return out + F.conv2d(h, block.shortcut.weight, stride=stride)
    return out + (x if raw else h)


@pytest.mark.parametrize("shortcut", ["activated", "raw"])
@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(6, 6, 1), (6, 12, 2), (6, 12, 1)])
def test_preact_block_equals_its_formula(shortcut, inputs, outputs, stride):
    generator = torch.Generator().manual_seed(0)
    block = PreActBlock(inputs, outputs, stride=stride, shortcut=shortcut).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(4, inputs, 8, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(block(x), block_by_hand(block, x, raw=shortcut == "raw"))


def test_shortcuts_differ_in_identity_blocks():
    x = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    activated = PreActBlock(6, 6, stride=1, shortcut="activated")
    raw = PreActBlock(6, 6, stride=1, shortcut="raw")
    raw.load_state_dict(activated.state_dict())
    torch.testing.assert_close(raw(x) - activated(x), x - F.relu(activated.norm1(x)))


def test_stem_norm_is_there_and_final_norm_only_on_request():
    with torch.device("meta"):
        official = preact_resnet18(num_classes=10, image_shape=RGB).trunk
        textbook = preact_resnet18(num_classes=10, image_shape=RGB, shortcut="raw", final_bn=True).trunk
    assert isinstance(official, PreActTrunk)
    assert isinstance(textbook, PreActTrunk)
    assert official.stem_norm is not None
    assert official.final_norm is None
    assert textbook.final_norm is not None


def test_projection_gradient_reaches_trunk_and_projection_but_not_the_classifier():
    network = small_cnn(num_classes=10, image_shape=(1, 8, 8), proj_dim=16)
    network(torch.randn(4, 1, 8, 8), project=True)[0].square().sum().backward()
    assert all(p.grad is None for p in network.classifier.parameters())
    assert network.projection is not None
    assert all(p.grad is not None for p in network.projection.parameters())
    assert all(p.grad is not None for p in network.trunk.parameters())


def test_projection_is_computed_only_when_asked_for():
    network = small_cnn(num_classes=10, image_shape=(1, 8, 8), proj_dim=16)
    assert network.projection is not None
    before = {name: value.clone() for name, value in network.projection.state_dict().items()}
    network(torch.randn(4, 1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.projection.state_dict().items())
    network(torch.randn(4, 1, 8, 8), project=True)
    assert int(network.projection[1].num_batches_tracked) == 1


def test_projection_head_does_not_change_how_the_rest_starts():
    torch.manual_seed(3)
    plain = small_cnn(num_classes=10, image_shape=(1, 8, 8)).state_dict()
    torch.manual_seed(3)
    headed = small_cnn(num_classes=10, image_shape=(1, 8, 8), proj_dim=16).state_dict()
    assert all(torch.equal(value, headed[name]) for name, value in plain.items())


def test_projecting_without_a_head_says_what_to_set():
    with pytest.raises(ConfigError, match=r"model\.proj_dim"):
        small_cnn(num_classes=10, image_shape=(1, 8, 8))(torch.randn(2, 1, 8, 8), project=True)


@pytest.mark.parametrize(
    ("builder", "options", "message"),
    [
        (small_cnn, {"norm": "bach"}, "batch, group, none"),
        (small_cnn, {"widths": []}, "at least one stage"),
        (small_cnn, {"widths": [8] * 7}, "halved 6 times"),
        (mlp, {"widths": []}, "at least one hidden layer"),
        (mlp, {"norm": "group"}, "batch, layer, none"),
        (preact_resnet18, {"shortcut": "activatd"}, "activated, raw"),
        (cifar_resnet, {"depth": 20}, "18 or 34"),
        (wide_resnet, {"depth": 27}, "6 n"),
    ],
)
def test_wrong_options_are_named(builder, options, message):
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        builder(num_classes=10, image_shape=RGB, **options)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_small_cnn_norms(norm):
    network = small_cnn(num_classes=10, image_shape=(1, 8, 8), widths=[12, 24], convs=2, norm=norm).eval()
    kinds = {type(module) for module in network.modules()}
    assert (nn.BatchNorm2d in kinds, nn.GroupNorm in kinds) == (norm == "batch", norm == "group")
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("builder", [small_cnn, cifar_resnet])
def test_channels_last_gives_the_same_result(builder):
    network = builder(num_classes=10, image_shape=RGB).eval()
    images = torch.randn(2, *RGB)
    expected = network(images)
    swapped = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(swapped, expected, rtol=1e-4, atol=1e-5)
