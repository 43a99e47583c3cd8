import copy

import pytest
import torch
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.models.mlp import mlp
from robustlab.models.resnet import resnet_small
from robustlab.pruning.strength_schedule import Schedule
from robustlab.pruning.update_noise import NoiseSettings, UpdateNoise


def network() -> nn.Module:
    torch.manual_seed(0)
    net = resnet_small(num_classes=3, image_shape=(1, 8, 8), widths=(64, 96), blocks=(1, 1))
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def moved(net: nn.Module, *, mask: str, std: float = 1e-3, t: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """What the noise adds to each parameter; gradients are those that `net` has."""
    before = copy.deepcopy(net.state_dict())
    noise = UpdateNoise(net, mask=mask, seed=seed)
    noise.look()
    noise.add(t, std)
    return {name: parameter.detach() - before[name] for name, parameter in net.named_parameters()}


def test_it_has_its_standard_deviation_everywhere_and_mean_zero():
    net = network()
    found = torch.cat([change.flatten() for change in moved(net, mask="all", std=1e-2).values()])
    assert len(found) >= 1e5
    assert found.std().item() == pytest.approx(1e-2, rel=0.02)
    assert abs(found.mean().item()) < 4e-2 / len(found) ** 0.5
    assert bool((found != 0).float().mean() > 0.999)


def test_it_is_a_function_of_seed_and_update():
    first, again, other, later = (
        moved(network(), mask="all", **options)["classifier.weight"] for options in ({}, {}, {"seed": 1}, {"t": 8})
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, later)


def with_a_dead_unit(*, layer_offset: float = -10.0) -> nn.Module:
    """An MLP whose hidden unit 2 is silent, with the gradients of a batch and a penalty's on its scale."""
    torch.manual_seed(0)
    net = mlp(num_classes=3, image_shape=(4,), widths=(5,), norm="batch")
    norm = next(module for module in net.modules() if isinstance(module, nn.BatchNorm1d))
    with torch.no_grad():
        norm.weight[2], norm.bias[2] = 1e-3, layer_offset
    net(torch.randn(16, 4)).square().sum().backward()
    return net


def unit(changes: dict[str, torch.Tensor], index: int) -> torch.Tensor:
    """What changed in a hidden unit's own parameters and in what reads it."""
    own = [value[index].flatten() for name, value in changes.items() if not name.startswith("classifier")]
    return torch.cat([*own, changes["classifier.weight"][:, index]])


def test_live_leaves_a_dead_unit_alone_scale_and_readers_included():
    net = with_a_dead_unit()
    norm = next(module for module in net.modules() if isinstance(module, nn.BatchNorm1d))
    assert norm.weight.grad is not None
    norm.weight.grad[2] = 0.5  # what a penalty in the loss would leave there: the mask of a scale is its offset's
    changes = moved(net, mask="live")
    assert bool((unit(changes, 2) == 0).all())
    assert bool((unit(changes, 1) != 0).any())
    assert bool((changes["classifier.bias"] != 0).all())


def test_all_moves_a_dead_unit_and_dead_moves_nothing_else():
    assert bool((unit(moved(with_a_dead_unit(), mask="all"), 2) != 0).all())
    changes = moved(with_a_dead_unit(), mask="dead")
    assert bool((unit(changes, 2) != 0).all())
    assert bool((changes["classifier.bias"] == 0).all())


def test_a_parameter_without_gradient_is_dead():
    net = with_a_dead_unit()
    net.get_parameter("classifier.bias").grad = None
    assert bool((moved(net, mask="live")["classifier.bias"] == 0).all())


def test_its_strength_follows_the_penaltys_unless_told_otherwise():
    penalty = Schedule("cosine", 0.5, 40, hard_off=True)
    assert NoiseSettings(std=1e-4).strength(penalty, 100) == Schedule("cosine", 1e-4, 40, hard_off=True)
    own = NoiseSettings(std=1e-4, schedule="constant", span=0.5).strength(penalty, 100)
    assert (own.kind, own.span) == ("constant", 50)


@pytest.mark.parametrize("options", [{"std": -1.0}, {"mask": "some"}, {"schedule": "sine"}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=f"method.noise.{next(iter(options))} is"):
        NoiseSettings(**options)
