"""In every network that declares units and every residual mode, taking out dead ones changes nothing."""

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from torch import nn

from robustlab.core.runtime import Runtime
from robustlab.engine.learner import Learner
from robustlab.models.bottleneck import resnet50
from robustlab.models.external import timm_model, torchvision_model
from robustlab.models.mlp import mlp
from robustlab.models.preact_resnet import preact_resnet18, wide_resnet
from robustlab.models.resnet import cifar_resnet, resnet_small
from robustlab.models.small_cnn import small_cnn
from robustlab.models.units import RESIDUAL_MODES, units_of
from robustlab.models.vgg import vgg16
from robustlab.pruning.cost import Cost, forward_flops
from robustlab.pruning.surgery import Surgeon
from tests.pruning.surgical import assert_consistent, count_by_hand, images, kill, some_dead, stirred

RGB, LARGE, DIGITS = (3, 32, 32), (3, 64, 64), (1, 8, 8)
VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "ls_init_value": 0.5}

MODELS = {
    "resnet18": (cifar_resnet, RGB, {"width": 4}),
    "resnet_small": (resnet_small, DIGITS, {}),
    "resnet50": (resnet50, RGB, {"width": 4}),
    "preact_resnet18": (preact_resnet18, RGB, {"width": 4}),
    "preact_resnet18_flattened": (preact_resnet18, LARGE, {"width": 4, "final_bn": True}),
    "preact_resnet18_raw": (preact_resnet18, RGB, {"width": 4, "shortcut": "raw", "final_bn": True}),
    "wide_resnet": (wide_resnet, RGB, {"depth": 10, "widen": 1}),
    "wide_resnet_activated": (wide_resnet, DIGITS, {"depth": 16, "widen": 1, "shortcut": "activated"}),
    "vgg16": (vgg16, LARGE, {"width": 4, "dense": [24, 20]}),
    "mlp": (mlp, DIGITS, {"widths": [12, 10]}),
    "mlp_without_norm": (mlp, DIGITS, {"widths": [12, 10], "norm": "none"}),
    "small_cnn": (small_cnn, DIGITS, {"widths": [6, 8], "convs": 2}),
    "small_cnn_without_norm": (small_cnn, DIGITS, {"widths": [6, 8], "norm": "none"}),
    "vit": (timm_model, RGB, {"architecture": "vit_tiny_patch16_224", "options": VIT}),
    "convnext": (timm_model, LARGE, {"architecture": "convnext_atto", "options": CONVNEXT}),
    "convnext_conv_mlp": (
        timm_model,
        LARGE,
        {"architecture": "convnext_atto", "options": {**CONVNEXT, "conv_mlp": True}},
    ),
    "resnet18_torchvision": (torchvision_model, RGB, {"architecture": "resnet18"}),
    "resnet50_torchvision": (torchvision_model, RGB, {"architecture": "resnet50", "options": {"width_per_group": 8}}),
    "resnet18_timm": (timm_model, RGB, {"architecture": "resnet18", "options": {"channels": [6, 8, 10, 12]}}),
    "resnet26_timm": (timm_model, RGB, {"architecture": "resnet26", "options": {"channels": [4, 5, 6, 7]}}),
    "resnet10t_timm": (timm_model, RGB, {"architecture": "resnet10t", "options": {"channels": [6, 8, 10, 12]}}),
}
ALL = pytest.mark.parametrize("name", MODELS)
STREAMED = [name for name in MODELS if name.startswith(("resnet", "preact", "wide"))]


def build(name: str, seed: int = 0) -> nn.Module:
    builder, shape, options = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return stirred(builder(num_classes=5, image_shape=shape, proj_dim=3, **options))


def both(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Projections and logits, side by side."""
    return torch.cat(network.eval()(batch, project=True), dim=1).detach()


@pytest.mark.parametrize(
    ("name", "mode"), [(n, m) for m in RESIDUAL_MODES for n in (MODELS if m == "per_block" else STREAMED)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_removing_dead_units_changes_nothing(name, mode, dtype, tolerance):
    network = build(name).to(dtype)
    units = units_of(network).in_mode(mode)
    batch = images(4, *MODELS[name][1], dtype=dtype)
    alive = both(network, batch)
    dead = some_dead(units)
    kill(network, units, dead)
    expected = both(network, batch)
    assert (expected - alive).abs().max() > 1e-2  # the units had a say
    parameters = count_by_hand(network, units, {key: int((~mask).sum()) for key, mask in dead.items()})
    surgeon = Surgeon(network, units)
    assert surgeon.remove(dead) == sum(int(mask.sum()) for mask in dead.values())
    assert (both(network, batch) - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))
    assert sum(one.numel() for one in network.parameters()) == parameters
    assert_consistent(surgeon)


@pytest.mark.parametrize(
    ("name", "mode"), [(n, m) for m in RESIDUAL_MODES for n in (MODELS if m == "per_block" else STREAMED)]
)
def test_the_cost_foretold_for_widths_is_that_of_the_cut_network(name, mode):
    network = build(name)
    units = units_of(network).in_mode(mode)
    cost = Cost.of(network, MODELS[name][1], units)
    surgeon = Surgeon(network, units)
    for seed in (2, 3):
        dead = some_dead(units, seed=seed)
        surgeon.remove({key: mask[: len(surgeon.live[key])] for key, mask in dead.items()})
        widths = {key: len(live) for key, live in surgeon.live.items()}
        assert cost.parameters_at(widths) == sum(one.numel() for one in network.parameters()) < cost.parameters
        assert cost.flops_at(widths) == forward_flops(network, MODELS[name][1]) < cost.flops


@ALL
def test_training_goes_on_and_resumes_at_any_width(name):
    batch = images(4, *MODELS[name][1])

    def fresh(seed: int) -> Learner:
        one = Learner(
            build(name, seed),
            runtime=Runtime(torch.device("cpu"), channels_last=True),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
        )
        one.attach_surgeon(units_of(one.network), round_to=2)
        return one

    def step(one: Learner) -> float:
        one.network.train()
        loss = F.cross_entropy(one(batch), torch.arange(4))
        one.step(loss)
        return loss.item()

    first, second = fresh(0), fresh(1)
    step(first)
    everything = {part.name: torch.ones(part.width, dtype=torch.bool) for part in first.surgeon.units.sets}
    halves = {key: torch.arange(len(mask)) % 2 == 0 for key, mask in everything.items()}
    for dead in (halves, everything):  # the last one leaves single placeholders, or two where widths are even
        first.remove({key: mask[: len(first.surgeon.live[key])] for key, mask in dead.items()})
        step(first)
        assert_consistent(first.surgeon)
    second.load_state_dict(first.state_dict())
    assert step(first) == step(second)


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "mlp", "mlp_without_norm", "small_cnn", "vit", "convnext"])
def test_constants_before_linear_and_1x1_layers_are_folded_exactly(name):
    network = build(name).double().eval()
    units = units_of(network).in_mode("inner_only")
    readers = {one.name: [network.get_submodule(reader.module) for reader in one.readers] for one in units.sets}
    pointwise = [key for key, found in readers.items() if all(one.weight[0, 0].numel() == 1 for one in found)]
    assert pointwise
    chosen = {key: mask for key, mask in some_dead(units).items() if key in pointwise}
    kill(network, units, chosen)
    seen = {}
    for key, mask in chosen.items():
        for path in units[key].writers:  # far above zero, where they were killed: constants, but not 0
            bias = network.get_submodule(path).bias
            if bias is not None and bool((bias[mask] < -1).all()):
                bias.data[mask] = torch.linspace(0.2, 0.9, int(mask.sum()), dtype=torch.float64)
        activation = network.get_submodule(units[key].activations[0])
        activation.register_forward_hook(lambda module, inputs, output, key=key: seen.update({key: output}))
    batch = images(4, *MODELS[name][1], dtype=torch.float64)
    expected = both(network, batch)
    axis = {key: list(seen[key].shape).index(len(mask), 1) for key, mask in chosen.items()}
    constants = {key: seen[key].movedim(axis[key], 0).flatten(1)[:, 0] for key in chosen}
    assert all(bool((constants[key][mask] > 0.1).all()) for key, mask in chosen.items())
    Surgeon(network, units).remove(chosen, constants=constants)
    assert (both(network, batch) - expected).abs().max() <= 1e-10


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("vit", "convnext", "convnext_conv_mlp")])
def test_the_library_torch_pruning_cuts_the_same(name):
    ours, theirs = build(name), build(name)
    units = units_of(ours).in_mode("inner_only")
    dead = some_dead(units)
    Surgeon(ours, units).remove(dead)
    batch = images(2, *MODELS[name][1])
    graph = torch_pruning.DependencyGraph().build_dependency(
        theirs.eval(),
        example_inputs=batch,
        forward_fn=lambda network, found: torch.cat(network(found, project=True), 1),
    )
    for key, mask in dead.items():
        layer = theirs.get_submodule(units[key].writers[0])
        linear = isinstance(layer, nn.Linear)
        cut = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
        graph.get_pruning_group(layer, cut, idxs=mask.nonzero().flatten().tolist()).prune()
    expected = theirs.state_dict()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, expected[key]), key
    torch.testing.assert_close(both(ours, batch), both(theirs, batch))
