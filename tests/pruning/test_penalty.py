import pytest
import torch
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.models.mlp import mlp
from robustlab.models.resnet import resnet_small
from robustlab.models.units import units_of
from robustlab.pruning.penalty import KINDS, TARGETS, PenaltySettings, add_gradient, norms, penalty, targeted


def network() -> nn.Module:
    torch.manual_seed(0)
    net = resnet_small(num_classes=3, image_shape=(1, 8, 8), widths=(4, 6), blocks=(1, 1))
    with torch.no_grad():
        for norm in norms(net):
            norm.get_parameter("weight").uniform_(-1, 1)
            norm.get_parameter("bias").uniform_(-1, 1)
    return net


def test_the_gradient_is_lambda_times_the_sign_of_every_scale_and_nothing_else():
    net = network()
    add_gradient(targeted(net, units_of(net), "scale_only"), "l1", 0.3)
    scales = {name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert any("shortcut" in name for name in scales)
    for name, parameter in net.named_parameters():
        path, _, kind = name.rpartition(".")
        if path in scales and kind == "weight":
            torch.testing.assert_close(parameter.grad, 0.3 * parameter.detach().sign())
        else:
            assert parameter.grad is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_it_is_the_gradient_of_a_term_of_the_loss(kind, target):
    net = network()
    chosen = targeted(net, units_of(net), target)
    sum_ = {"l1": lambda p: p.abs().sum(), "l2": lambda p: p.square().sum() / 2}[kind.removeprefix("pos_")]
    value = sum(sum_(p.clamp(min=0) if kind.startswith("pos") else p) for p in chosen)
    assert isinstance(value, torch.Tensor)
    task = sum(p.square().sum() for p in net.parameters())
    (task + 0.7 * value).backward()
    wanted = {name: p.grad for name, p in net.named_parameters()}
    net.zero_grad()
    sum(p.square().sum() for p in net.parameters()).backward()  # type: ignore[union-attr]
    add_gradient(chosen, kind, 0.7)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name])
    torch.testing.assert_close(penalty(chosen, kind), value.detach())


def test_targets_by_name():
    net = network()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {target: {names[id(p)] for p in targeted(net, units_of(net), target)} for target in TARGETS}
    norm_names = found["scale_only"] | found["offset_only"]
    assert found["all"] == set(names.values())
    assert found["norm_params"] == norm_names
    assert found["no_scale"] == found["all"] - found["scale_only"]
    assert {"classifier.bias"} == found["all"] - norm_names - found["no_norm_no_bias"]
    assert found["unit_weights"] == {name for name in found["all"] - norm_names if not name.startswith("classifier")}


def test_a_network_without_norms_needs_another_target():
    net = mlp(num_classes=3, image_shape=(4,), widths=(5,), norm="none")
    with pytest.raises(ConfigError, match=r"use method\.reg.target=all"):
        targeted(net, units_of(net), "scale_only")
    assert len(targeted(net, units_of(net), "all")) == 4


@pytest.mark.parametrize(
    "options", [{"kind": "l3"}, {"target": "gamma"}, {"schedule": "sine"}, {"peak": -1.0}, {"parts": 0}]
)
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=f"method.reg.{next(iter(options))} is"):
        PenaltySettings(**options)
