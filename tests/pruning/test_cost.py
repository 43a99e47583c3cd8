"""Parameters and FLOPs, in both conventions, against counts by hand and the published ones."""

import pytest
import torch
from torch import nn

from robustlab.models.bottleneck import resnet50
from robustlab.models.external import timm_model
from robustlab.models.mlp import mlp
from robustlab.models.resnet import cifar_resnet, resnet_small
from robustlab.models.units import units_of
from robustlab.pruning.cost import Cost, forward_flops, layer_flops, parameters
from robustlab.pruning.surgery import Surgeon

RGB32 = (3, 32, 32)


@pytest.fixture(scope="module")
def resnet18():
    return cifar_resnet(num_classes=10, image_shape=RGB32)


def half_of(units):
    return {one.name: torch.arange(one.width) >= one.width // 2 for one in units.sets}


def test_resnet18_is_the_published_size(resnet18):
    assert parameters(resnet18) == 11_173_962
    assert forward_flops(resnet18, RGB32) == 1_110_845_440


def test_half_the_width_is_half_the_cost_for_the_authors_and_a_quarter_in_fact(resnet18):
    units = units_of(resnet18)
    cost = Cost.of(resnet18, RGB32, units)
    half = cifar_resnet(num_classes=10, image_shape=RGB32, width=32)
    assert cost.flops_ratio({one.name: 0.5 for one in units.sets}) == pytest.approx(0.5, abs=1e-5)
    assert forward_flops(half, RGB32) / cost.flops == pytest.approx(0.25, abs=1e-3)


def test_a_network_cut_to_half_its_width_costs_what_one_built_so_does():
    network = resnet_small(num_classes=10, image_shape=(1, 8, 8), widths=[8, 16], blocks=[2, 2])
    dense = Cost.of(network, (1, 8, 8), units_of(network))
    Surgeon(network, units_of(network)).remove(half_of(units_of(network)))
    built = resnet_small(num_classes=10, image_shape=(1, 8, 8), widths=[4, 8], blocks=[2, 2])
    assert forward_flops(network, (1, 8, 8)) == forward_flops(built, (1, 8, 8)) < dense.flops
    assert parameters(network) == parameters(built)
    assert dense.weight_sparsity(network) == 1 - parameters(built) / dense.parameters


def test_layers_are_counted_by_hand():
    """Two multiply-adds' worth of FLOPs each: 2 * outputs * inputs * kernel * positions."""
    network = resnet_small(num_classes=5, image_shape=(1, 8, 8), widths=[4, 6], blocks=[1, 1])
    by_hand = {
        "trunk.stem": 2 * 4 * 1 * 9 * 64,
        "trunk.stages.0.0.conv1": 2 * 4 * 4 * 9 * 64,
        "trunk.stages.0.0.conv2": 2 * 4 * 4 * 9 * 64,
        "trunk.stages.1.0.conv1": 2 * 6 * 4 * 9 * 16,
        "trunk.stages.1.0.conv2": 2 * 6 * 6 * 9 * 16,
        "trunk.stages.1.0.shortcut.0": 2 * 6 * 4 * 1 * 16,
        "classifier": 2 * 5 * 6,
    }
    assert layer_flops(network, (1, 8, 8)) == by_hand
    cost = Cost.of(network, (1, 8, 8), units_of(network))
    assert cost.flops == cost.author_flops() == sum(by_hand.values())
    last = next(one.name for one in units_of(network).sets if "trunk.stages.1.0.conv2" in one.writers)
    on_the_output_side = ("trunk.stages.1.0.conv2", "trunk.stages.1.0.shortcut.0")
    expected = sum(flops * (0.25 if path in on_the_output_side else 1) for path, flops in by_hand.items())
    assert cost.author_flops({last: 0.25}) == expected


def test_what_is_never_pruned_costs_its_whole():
    """In the mode that leaves residual streams alone, only the first convolutions of the blocks have units."""
    network = resnet_small(num_classes=5, image_shape=(1, 8, 8), widths=[4, 6], blocks=[1, 1])
    cost = Cost.of(network, (1, 8, 8), units_of(network).in_mode("inner_only"))
    assert set(cost.owners) == {"trunk.stages.0.0.conv1", "trunk.stages.1.0.conv1"}
    gone = cost.author_flops() - cost.author_flops(dict.fromkeys(cost.owners.values(), 0.0))
    assert gone == sum(cost.layers[path] for path in cost.owners)


def test_attention_is_in_the_physical_count_and_not_in_the_authors():
    tiny = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2, "class_token": False}
    options = {**tiny, "global_pool": "avg"}
    network = timm_model(num_classes=10, image_shape=(3, 16, 16), architecture="vit_tiny_patch16_224", options=options)
    cost = Cost.of(network, (3, 16, 16), units_of(network))
    assert cost.flops - cost.author_flops() == 2 * 2 * 16 * 16 * 12  # queries by keys, weights by values


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_network_as_it_was(training):
    network = mlp(num_classes=3, image_shape=(1, 4, 4), widths=[8])
    network.train(training)
    network.trunk.eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seed = torch.get_rng_state()
    assert forward_flops(network, (1, 4, 4)) == 2 * (16 * 8 + 8 * 3)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), seed)


def test_frozen_parameters_and_buffers_are_no_weights():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    network[0].requires_grad_(False)
    assert parameters(network) == 8


def test_a_compiled_network_is_measured_without_compiling_it():
    network = mlp(num_classes=3, image_shape=(1, 4, 4), widths=[8])
    compiled = []
    network.compile(backend=lambda graph, inputs: compiled.append(graph) or graph.forward)
    assert forward_flops(network, (1, 4, 4)) == 2 * (16 * 8 + 8 * 3)
    assert compiled == []
    network(torch.zeros(2, 1, 4, 4))
    assert len(compiled) == 1


def test_resnet50_is_the_published_size():
    network = resnet50(num_classes=1000, image_shape=(3, 224, 224))
    cost = Cost.of(network, (3, 224, 224), units_of(network))
    assert cost.parameters == 25_557_032
    assert cost.flops == cost.author_flops() == pytest.approx(8.18e9, rel=1e-3)
    assert 3 * cost.flops * 1_281_167 * 100 == pytest.approx(3.14e18, rel=2e-3)
