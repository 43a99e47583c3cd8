"""Dead layers that disconnect a network, in every model, and skips that bypass them."""

import pytest
import torch

from robustlab.models.units import units_of
from robustlab.pruning.collapse import severing_sets
from tests.pruning.surgical import images
from tests.pruning.test_surgery_models import MODELS, build

CHAINS = ("vgg16", "mlp", "mlp_without_norm", "small_cnn", "small_cnn_without_norm")


def severed(network, units, *names, shape) -> list[str]:
    dead = {one.name: torch.full((one.width,), one.name in names) for one in units.sets}
    return severing_sets(network, units, dead, images(3, *shape))


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_of_a_chain_and_each_residual_stream_severs_and_an_inner_layer_does_not(name):
    network = build(name)
    units = units_of(network)
    shape = MODELS[name][1]
    for one in units.sets:
        found = severed(network, units, one.name, shape=shape)
        # A post-activation network has nothing beside its stream; a pre-activation one has the sum that it normalises.
        if name in CHAINS or name.startswith("resnet"):
            expected = name in CHAINS or one.residual or one.name.startswith("conv1.")  # of a deep stem
            assert found == ([one.name] if expected else []), one.name
        elif not one.residual:
            assert found == [], one.name
    assert severed(network, units, shape=shape) == []


def test_units_that_live_next_to_dead_ones_keep_a_layer_open():
    network = build("mlp")
    units = units_of(network)
    dead = {one.name: torch.arange(one.width) > 0 for one in units.sets}
    assert severing_sets(network, units, dead, images(2, 1, 8, 8)) == []


def test_silence_on_the_given_images_is_no_cut():
    """The one unit left fires on none of them; on others it may."""
    network = build("mlp")
    units = units_of(network)
    network.trunk[2].bias.data.fill_(-1e3)
    whole = {"dense2": torch.zeros(10, dtype=torch.bool), "dense1": torch.arange(12) > 0}
    assert severing_sets(network, units, whole, images(2, 1, 8, 8)) == []


def test_layers_that_sever_only_together_are_named_together():
    network = build("preact_resnet18")
    units = units_of(network)
    names = [one.name for one in units.sets]
    found = severed(network, units, *names, shape=MODELS["preact_resnet18"][1])
    alone = [name for name in names if severed(network, units, name, shape=MODELS["preact_resnet18"][1])]
    assert found == (alone or names)


def test_the_probe_leaves_no_trace():
    network = build("resnet_small").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    units = units_of(network)
    severed(network, units, "stem", shape=(1, 8, 8))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
