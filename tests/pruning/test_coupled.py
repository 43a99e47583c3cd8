"""Group norms and the sparse training of GroupNorm against torch-pruning itself."""

import sys

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.models.heads import TwoHeads
from robustlab.models.mlp import mlp
from robustlab.models.resnet import cifar_resnet
from robustlab.models.small_cnn import small_cnn
from robustlab.models.units import Reader, Units, UnitSet, units_of
from robustlab.pruning.coupled import add_group_shrinkage, coupled_scores, group_norms


class Flattened(nn.Module):
    """A convolution whose maps are flattened, as in VGG."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.hidden, self.act2, self.head = nn.Linear(4 * 36, 5), nn.ReLU(), nn.Linear(5, 10)

    def forward(self, images):
        maps = self.act(self.norm(self.conv(images)))
        return self.head(self.act2(self.hidden(maps.flatten(1))))

    def units(self) -> Units:
        return Units(
            (
                UnitSet("conv", 4, ("act",), ("conv", "norm"), (Reader("hidden", 36),)),
                UnitSet("hidden", 5, ("act2",), ("hidden",), (Reader("head"),)),
            )
        )


SHAPE = (3, 8, 8)
NETWORKS = {
    "mlp": (lambda: mlp(num_classes=10, image_shape=SHAPE, widths=[6, 5]), "per_block"),
    "small_cnn": (lambda: small_cnn(num_classes=10, image_shape=SHAPE, widths=[6, 8]), "per_block"),
    "flattened": (Flattened, "per_block"),
    "resnet, inner": (lambda: cifar_resnet(num_classes=10, image_shape=SHAPE, width=4), "inner_only"),
    "resnet, shared": (lambda: cifar_resnet(num_classes=10, image_shape=SHAPE, width=4), "stage_shared"),
}


def make(name: str) -> tuple[nn.Module, Units]:
    torch.manual_seed(0)
    build, mode = NETWORKS[name]
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
    return network, units_of(network).in_mode(mode)


def backward(network: nn.Module) -> None:
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    F.cross_entropy(network.eval()(images), torch.arange(4)).backward()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_shrinkage_is_that_of_the_library(name):
    (ours, units), (theirs, _) = make(name), make(name)
    backward(ours)
    backward(theirs)
    heads = [theirs.classifier] if isinstance(theirs, TwoHeads) else [theirs.head]
    pruner = torch_pruning.pruner.GroupNormPruner(
        theirs,
        torch.zeros(1, *SHAPE),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="max"),
        reg=0.01,
        ignored_layers=[*heads, *_streams(theirs, units)],
    )
    pruner.regularize(theirs, alpha=16)
    before = [parameter.grad.clone() for parameter in ours.parameters()]
    add_group_shrinkage(ours, units, strength=0.01, alpha=16)
    for own, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, their.grad, rtol=1e-4, atol=1e-7)
    assert any(not torch.equal(old, parameter.grad) for old, parameter in zip(before, ours.parameters(), strict=True))


def _streams(network: nn.Module, units: Units) -> list[nn.Module]:
    """Layers that write units which are not to be pruned."""
    kept = {path for one in units_of(network).sets for path in one.writers}
    return [network.get_submodule(path) for path in kept - {path for one in units.sets for path in one.writers}]


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_the_mean_squares_of_the_group_over_the_largest(name):
    network, units = make(name)
    network.train()
    scores = coupled_scores(network, units, torch.zeros(1, *SHAPE), normalizer="max")
    assert network.training
    for set_name, norms in group_norms(network, units).items():
        squares = norms.pow(2)
        torch.testing.assert_close(scores[set_name], squares / squares.max(), rtol=1e-4, atol=1e-7)


def test_channels_of_a_stream_cannot_be_ranked_one_by_one():
    network, _ = make("resnet, shared")
    with pytest.raises(ConfigError, match="stage_shared or inner_only"):
        coupled_scores(network, units_of(network), torch.zeros(1, *SHAPE), normalizer="max")


def test_units_of_one_size_are_shrunk_alike():
    network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    units = Units((UnitSet("hidden", 3, ("1",), ("0",), (Reader("2"),)),))
    add_group_shrinkage(network, units, strength=0.5, alpha=16)
    assert all((parameter.grad == 0.5).all() for parameter in network.parameters())


def test_without_the_library_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    network, units = make("mlp")
    with pytest.raises(ConfigError, match="uv sync --extra pruning"):
        coupled_scores(network, units, torch.zeros(1, *SHAPE), normalizer="max")
