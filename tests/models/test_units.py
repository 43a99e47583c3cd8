"""Units declared by networks: their number, writers, readers and activations."""

import pytest
import timm
import torch
from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.models.bottleneck import resnet50
from robustlab.models.external import timm_model, torchvision_model
from robustlab.models.mlp import mlp
from robustlab.models.preact_resnet import preact_resnet18, wide_resnet
from robustlab.models.resnet import cifar_resnet, resnet_small
from robustlab.models.skip import Selector
from robustlab.models.small_cnn import small_cnn
from robustlab.models.transformer import mlp_units
from robustlab.models.units import Reader, Units, UnitSet, units_of
from robustlab.models.vgg import vgg16
from robustlab.pruning.surgery import Surgeon

RGB, LARGE, DIGITS = (3, 32, 32), (3, 64, 64), (1, 8, 8)
VIT = {"architecture": "vit_tiny_patch16_224", "options": {"img_size": 32, "patch_size": 8, "depth": 2}}
CONVNEXT = {"architecture": "convnext_atto", "options": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}}

BUILDERS = {
    "resnet18": (cifar_resnet, RGB, {"width": 4}),
    "resnet_small": (resnet_small, DIGITS, {}),
    "resnet_one_stage": (resnet_small, DIGITS, {"widths": [6], "blocks": [1]}),
    "resnet50": (resnet50, RGB, {"width": 4, "zero_init": False}),
    "preact_activated": (preact_resnet18, RGB, {"width": 4}),
    "preact_final_norm": (preact_resnet18, LARGE, {"width": 3, "final_bn": True}),
    "preact_raw": (preact_resnet18, RGB, {"width": 4, "shortcut": "raw", "final_bn": True}),
    "wide_activated": (wide_resnet, DIGITS, {"depth": 16, "widen": 1, "shortcut": "activated"}),
    "wide_raw": (wide_resnet, RGB, {"depth": 10, "widen": 1}),
    "vgg16": (vgg16, LARGE, {"width": 2, "dense": [24, 20]}),
    "mlp": (mlp, DIGITS, {"widths": [12, 10]}),
    "mlp_without_norm": (mlp, DIGITS, {"widths": [12, 10], "norm": "none"}),
    "small_cnn": (small_cnn, DIGITS, {"widths": [6, 8], "convs": 2}),
    "small_cnn_without_norm": (small_cnn, DIGITS, {"widths": [6, 8], "norm": "none"}),
    "vit": (timm_model, RGB, VIT),
    "convnext": (timm_model, LARGE, CONVNEXT),
    "convnext_of_convolutions": (timm_model, LARGE, {**CONVNEXT, "options": {**CONVNEXT["options"], "conv_mlp": True}}),
    "resnet18_torchvision": (torchvision_model, RGB, {"architecture": "resnet18"}),
    "resnet50_torchvision": (torchvision_model, RGB, {"architecture": "resnet50", "options": {"width_per_group": 8}}),
    "resnet18_timm": (timm_model, RGB, {"architecture": "resnet18", "options": {"channels": [6, 8, 10, 12]}}),
    "resnet26_timm": (timm_model, RGB, {"architecture": "resnet26", "options": {"channels": [4, 5, 6, 7]}}),
    "resnet10t_timm": (timm_model, RGB, {"architecture": "resnet10t", "options": {"channels": [6, 8, 10, 12]}}),
}
ALL = pytest.mark.parametrize("name", BUILDERS)


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network in eval mode, double precision, every parameter and statistic drawn at random; and images for it."""
    builder, shape, options = BUILDERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = builder(num_classes=3, image_shape=shape, proj_dim=5, **options).double().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                for tensor in (module.weight.data, module.bias.data, module.running_mean):
                    tensor.uniform_(-0.5, 1)
                module.running_var.uniform_(0.5, 2)
        return network, torch.randn(2, *shape, dtype=torch.float64)


def outputs(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat(network(images, project=True), dim=1)


def unit_axis(network: nn.Module, one: UnitSet) -> int:
    return 1 if isinstance(network.get_submodule(one.writers[0]), nn.Conv2d) else -1


def chosen(one: UnitSet) -> Tensor:
    """Every third unit."""
    return torch.arange(0, one.width, 3)


@pytest.mark.parametrize(
    ("builder", "shape", "options", "total", "sets"),
    [
        (cifar_resnet, RGB, {}, 3_904, 17),
        (resnet50, (3, 224, 224), {}, 22_720, 49),
        (vgg16, LARGE, {}, 12_928, 15),
        (mlp, (1, 28, 28), {"widths": [100, 300]}, 400, 2),
        (resnet_small, DIGITS, {}, 232, 13),
        (resnet_small, RGB, {"widths": [16, 32, 64]}, 464, 13),
        (preact_resnet18, RGB, {"final_bn": True}, 3_904, 17),
        (preact_resnet18, RGB, {}, 3_904 - 512, 16),
        (preact_resnet18, RGB, {"shortcut": "raw", "final_bn": True}, 1_920, 8),
        (small_cnn, DIGITS, {}, 224, 3),
    ],
)
def test_totals(builder, shape, options, total, sets):
    with torch.device("meta"):
        units = units_of(builder(num_classes=10, image_shape=shape, **options))
    assert (units.total, len(units.sets)) == (total, sets)


def test_totals_of_a_vision_transformer():
    with torch.device("meta"):
        units = mlp_units(timm.create_model("vit_base_patch16_224"))
    assert [one.width for one in units.sets] == [3_072] * 12


@pytest.mark.parametrize(
    ("builder", "widths"),
    [
        (cifar_resnet, [64] * 5 + [128] * 4 + [256] * 4 + [512] * 4),
        (vgg16, [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 1024, 4096, 4096]),
    ],
)
def test_widths_in_forward_order(builder, widths):
    with torch.device("meta"):
        units = units_of(builder(num_classes=10, image_shape=RGB))
    assert [one.width for one in units.sets] == widths


@ALL
def test_axes_have_the_declared_width_and_belong_to_one_set(name):
    network, _ = build(name)
    units = units_of(network)
    for one in units.sets:
        for path in one.writers:
            assert {len(parameter) for parameter in network.get_submodule(path).parameters()} == {one.width}
        for reader in one.readers:
            weight = network.get_submodule(reader.module).get_parameter("weight")
            assert weight.shape[1] == one.width * reader.columns
    for paths in (
        [path for one in units.sets for path in one.writers],
        [path for one in units.sets for path in one.activations],
        [reader.module for one in units.sets for reader in one.readers],
        [skip.module for skip in units.skips],
    ):
        assert len(set(paths)) == len(paths)
    for skip in units.skips:
        assert isinstance(network.get_submodule(skip.module), Selector)
        assert skip.target is None or units[skip.source].width == units[skip.target].width


@ALL
def test_every_activation_is_called_once_and_has_the_units_in_its_axis(name):
    network, images = build(name)
    units = units_of(network)
    calls: dict[str, list[Tensor]] = {path: [] for one in units.sets for path in one.activations}
    for path, outs in calls.items():
        network.get_submodule(path).register_forward_hook(lambda *given, outs=outs: outs.append(given[-1]))
    outputs(network, images)
    for one in units.sets:
        for path in one.activations:
            assert type(network.get_submodule(path)).__name__ in ("ReLU", "GELU")  # timm has a GELU of its own
            assert [out.shape[unit_axis(network, one)] for out in calls[path]] == [one.width]


def disconnect(network: nn.Module, units: Units, name: str, gone: Tensor, *, end: str) -> None:
    """Make the skips that start ("source") or end ("target") at set `name` pass the units `gone` by."""
    for skip in units.skips:
        if getattr(skip, end) == name:
            indices = 2 * torch.arange(units[name].width)
            marked = indices.clone()
            marked[gone] += 1  # an index that the other side does not have
            sides = (marked, indices) if end == "source" else (indices, marked)
            selector = network.get_submodule(skip.module)
            assert isinstance(selector, Selector)
            selector.connect(*sides)


@ALL
def test_nothing_else_reads_a_unit(name):
    """With the readers' columns zero and the skips cut, whatever the units put out reaches no output."""
    network, images = build(name)
    units = units_of(network)
    for one in units.sets:
        gone, axis = chosen(one), unit_axis(network, one)
        plain = outputs(network, images)

        def disturb(module, args, out, gone=gone, axis=axis):
            return out.index_fill(axis, gone, 7.0)

        hooks = [network.get_submodule(path).register_forward_hook(disturb) for path in one.activations]
        assert not torch.equal(outputs(network, images), plain), f"{one.name} has no effect to begin with"
        for reader in one.readers:
            columns = (gone[:, None] * reader.columns + torch.arange(reader.columns)).flatten()
            network.get_submodule(reader.module).get_parameter("weight").data.index_fill_(1, columns, 0.0)
        disconnect(network, units, one.name, gone, end="source")
        disturbed = outputs(network, images)
        for hook in hooks:
            hook.remove()
        assert torch.equal(disturbed, outputs(network, images)), one.name


@ALL
def test_nothing_else_writes_a_unit(name):
    """With the writers' rows zero and the skips cut, what norms take in and activations put out is zero."""
    network, images = build(name)
    units = units_of(network)
    for one in units.sets:
        gone, axis = chosen(one), unit_axis(network, one)
        for path in one.writers:
            for parameter in network.get_submodule(path).parameters():
                parameter.data[gone] = 0.0
        disconnect(network, units, one.name, gone, end="target")
        seen: list[Tensor] = []
        hooks = [
            network.get_submodule(path).register_forward_hook(lambda *given, seen=seen: seen.append(given[-1]))
            for path in one.activations
        ] + [
            network.get_submodule(path).register_forward_pre_hook(lambda *given, seen=seen: seen.append(given[-1][0]))
            for path in one.writers
            if isinstance(network.get_submodule(path), nn.BatchNorm1d | nn.BatchNorm2d)
        ]
        outputs(network, images)
        for hook in hooks:
            hook.remove()
        assert all(not out.index_select(axis, gone).any() for out in seen), one.name


def test_skips_are_those_of_blocks_without_a_projection():
    blocks = [f"trunk.stages.{stage}.{index}.skip" for stage, index in [(0, 0), (0, 1), (1, 1), (2, 1), (3, 1)]]
    for name in ("resnet18", "preact_activated", "preact_final_norm"):
        assert [skip.module for skip in units_of(build(name)[0]).skips] == blocks
    assert units_of(build("preact_final_norm")[0]).skips[-1].target == "final"
    assert units_of(build("preact_activated")[0]).skips[-1].target is None  # the raw output stays whole
    assert not units_of(build("preact_raw")[0]).skips


def test_flattened_maps_give_each_channel_its_own_columns():
    last = units_of(build("vgg16")[0])["conv13"]  # 64x64 images, four times halved, pooled 2x2
    assert last.readers == (Reader("trunk.dense.0", 4),)
    last = units_of(build("preact_final_norm")[0])["final"]
    assert last.readers == (Reader("classifier", 4), Reader("projection.0", 4))


@pytest.mark.parametrize(
    ("builder", "architecture", "total", "sets"),
    [
        (torchvision_model, "resnet18", 3_904, 17),
        (torchvision_model, "resnet50", 22_720, 49),
        (timm_model, "resnet34", 64 + 6 * 64 + 8 * 128 + 12 * 256 + 6 * 512, 33),
        (timm_model, "resnet50", 22_720, 49),
    ],
)
def test_totals_of_the_libraries_resnets(builder, architecture, total, sets):
    units = units_of(builder(num_classes=10, image_shape=RGB, architecture=architecture))
    assert (units.total, len(units.sets)) == (total, sets)


@pytest.mark.parametrize(
    ("builder", "architecture", "words"),
    [
        (timm_model, "mobilenetv3_small_050", "is a convolution depthwise"),
        (torchvision_model, "mobilenet_v3_small", "is a convolution depthwise"),
        (timm_model, "seresnet18", "declares no units"),
        (timm_model, "resnetblur18", "declares no units"),
    ],
)
def test_channels_that_cannot_be_removed_one_by_one_are_refused(builder, architecture, words):
    network = builder(num_classes=10, image_shape=LARGE, architecture=architecture)
    with pytest.raises(ConfigError, match=words):
        units_of(network)


def test_grouped_convolutions_of_a_resnet_are_refused_by_name():
    network = torchvision_model(num_classes=10, image_shape=RGB, architecture="resnext50_32x4d")
    with pytest.raises(ConfigError, match=r"trunk\.layer1\.0\.conv2 is a convolution with 32 groups"):
        Surgeon(network, units_of(network))
