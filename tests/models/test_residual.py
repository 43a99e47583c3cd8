"""Post-activation residual networks: their arithmetic, names in checkpoints, and ResNet-50 against torchvision."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robustlab.core.errors import ConfigError
from robustlab.models.bottleneck import Bottleneck, resnet50
from robustlab.models.heads import TwoHeads
from robustlab.models.preact_resnet import preact_resnet18
from robustlab.models.resnet import cifar_resnet, resnet_small

RGB = (3, 32, 32)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def norm(path: str) -> list[str]:
    return [f"{path}.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def randomise(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5 if "var" in name else -0.5, 1, generator=generator)


def test_names_in_checkpoints_of_resnet18():
    expected = ["trunk.stem.weight", *norm("trunk.norm")]
    for stage in range(4):
        for index in range(2):
            block = f"trunk.stages.{stage}.{index}"
            for number in (1, 2):
                expected += [f"{block}.conv{number}.weight", *norm(f"{block}.norm{number}")]
            if stage and not index:
                expected += [f"{block}.shortcut.0.weight", *norm(f"{block}.shortcut.1")]
    with torch.device("meta"):
        network = cifar_resnet(num_classes=10, image_shape=RGB)
    assert set(network.state_dict()) == {*expected, "classifier.weight", "classifier.bias"}


def test_names_in_checkpoints_of_the_preactivation_resnet18():
    expected = ["trunk.stem.weight", *norm("trunk.stem_norm"), *norm("trunk.final_norm")]
    for stage in range(4):
        for index in range(2):
            block = f"trunk.stages.{stage}.{index}"
            for number in (1, 2):
                expected += [f"{block}.conv{number}.weight", *norm(f"{block}.norm{number}")]
            expected += [f"{block}.shortcut.weight"] if stage and not index else []
    with torch.device("meta"):
        network = preact_resnet18(num_classes=10, image_shape=RGB, final_bn=True)
    assert set(network.state_dict()) == {*expected, "classifier.weight", "classifier.bias"}


def resnet_by_hand(network: TwoHeads, images: Tensor, *, stages: int) -> Tensor:
    """The formula of a network of basic blocks, on its own tensors, BatchNorm in eval mode."""
    state = network.state_dict()

    def normed(path: str, x: Tensor) -> Tensor:
        mean, variance = state[f"{path}.running_mean"], state[f"{path}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{path}.weight"], state[f"{path}.bias"], eps=1e-5)

    x = F.relu(normed("trunk.norm", F.conv2d(images, state["trunk.stem.weight"], padding=1)))
    for stage in range(stages):
        for index in range(2):
            block = f"trunk.stages.{stage}.{index}"
            stride = 2 if stage and not index else 1
            hidden = F.conv2d(x, state[f"{block}.conv1.weight"], stride=stride, padding=1)
            hidden = F.conv2d(F.relu(normed(f"{block}.norm1", hidden)), state[f"{block}.conv2.weight"], padding=1)
            if stride == 2:
                x = normed(f"{block}.shortcut.1", F.conv2d(x, state[f"{block}.shortcut.0.weight"], stride=2))
            x = F.relu(normed(f"{block}.norm2", hidden) + x)
    return x.mean(dim=(2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("shape", [(1, 8, 8), RGB, (3, 9, 13)])
def test_a_network_of_basic_blocks_equals_its_formula(shape):
    network = resnet_small(num_classes=7, image_shape=shape, widths=[4, 6, 8], blocks=[2, 2, 2]).double().eval()
    randomise(network)
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(network(images), resnet_by_hand(network, images, stages=3))


def test_stages_can_be_of_any_number_and_width():
    network = resnet_small(num_classes=5, image_shape=(1, 8, 8), widths=[3, 10], blocks=[1, 3], proj_dim=4).eval()
    projection, logits = network(torch.randn(2, 1, 8, 8), project=True)
    assert (projection.shape, logits.shape) == ((2, 4), (2, 5))
    same = resnet_small(num_classes=10, image_shape=RGB, widths=[8, 16, 32, 64], blocks=[2, 2, 2, 2])
    assert parameters(same) == parameters(cifar_resnet(num_classes=10, image_shape=RGB, width=8))


@pytest.mark.parametrize("options", [{"widths": []}, {"widths": [8, 16]}, {"blocks": [2, 0, 2]}, {"widths": [8, 0, 8]}])
def test_stages_without_width_or_blocks_are_refused(options):
    with pytest.raises(ConfigError, match="at least one stage"):
        resnet_small(num_classes=10, image_shape=RGB, **options)


@pytest.mark.parametrize(
    ("builder", "shape", "options", "count"),
    [
        (resnet_small, (1, 8, 8), {}, 44_226),
        (resnet_small, RGB, {"widths": [16, 32, 64]}, 175_258),
        (resnet50, (3, 224, 224), {"num_classes": 1000}, 25_557_032),
    ],
)
def test_parameter_counts(builder, shape, options, count):
    with torch.device("meta"):
        assert parameters(builder(image_shape=shape, **{"num_classes": 10, **options})) == count


def test_cost_of_resnet50_at_224_pixels():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        resnet50(num_classes=1000, image_shape=(3, 224, 224)).eval()(torch.empty(1, 3, 224, 224))
    assert counter.get_total_flops() == pytest.approx(8.18e9, rel=1e-3)


def test_resnet50_computes_what_torchvisions_does():
    from torchvision.models.resnet import Bottleneck as TheirBlock
    from torchvision.models.resnet import ResNet

    with torch.device("meta"):  # random initialisation of both would take most of the time
        network = resnet50(num_classes=1000, image_shape=RGB).to_empty(device="cpu").double().eval()
        theirs = ResNet(TheirBlock, [3, 4, 6, 3]).eval()
    randomise(network)
    names = {"stem": "conv1", "norm": "bn1", "shortcut": "downsample"}
    state = {}
    for name, tensor in network.state_dict().items():
        parts = name.removeprefix("trunk.").replace("classifier", "fc").split(".")
        if parts[0] == "stages":
            parts[:2] = [f"layer{int(parts[1]) + 1}"]
        parts = [names.get(part, part.replace("norm", "bn")) for part in parts]
        scale = 0.02 if "conv" in parts[-2] or parts[-2] == "0" else 1.0  # random weights grow through 50 layers
        state[".".join(parts)] = tensor.mul_(scale) if tensor.is_floating_point() else tensor
    theirs.load_state_dict(state, assign=True)
    images = torch.randn(2, *RGB, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(network(images), theirs(images))


def test_blocks_of_resnet50_start_as_their_shortcuts_on_request():
    images = torch.rand(2, 16, 5, 5)
    for zero_init in (True, False):
        network = resnet50(num_classes=10, image_shape=RGB, width=4, zero_init=zero_init).eval()
        block = network.trunk.get_submodule("stages.0.1")
        assert isinstance(block, Bottleneck)
        assert torch.equal(block(images), images) == zero_init
