import copy

import pytest
import torch
from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.models.heads import TwoHeads
from robustlab.models.units import FEATURES, Reader, Units, UnitSet, units_of
from robustlab.pruning.death import DeathSettings, find_dead
from tests.pruning.surgical import images, kill, some_dead, tiny

RUNTIME = Runtime(torch.device("cpu"))


class OneLayer(nn.Module):
    """Convolution, BatchNorm and an activation, mean over the map: float [B, 1, 4, 4] to [B, 4]."""

    def __init__(self, activation: nn.Module, *, linear: bool = False):
        super().__init__()
        self.layer = nn.Linear(3, 4, bias=False) if linear else nn.Conv2d(1, 4, 1, bias=False)
        self.norm = nn.Identity() if linear else nn.BatchNorm2d(4)
        self.act = activation
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.norm(self.layer(x)))
        return out.mean(dim=1 if self.linear else (2, 3))

    def units(self) -> Units:
        writers = ("layer",) if self.linear else ("layer", "norm")
        return Units((UnitSet("only", 4, ("act",), writers, (Reader(FEATURES),)),))


def one_layer(activation: nn.Module, *, scale: list[float], offset: list[float]) -> nn.Module:
    trunk = OneLayer(activation)
    with torch.no_grad():
        trunk.layer.weight.fill_(1.0)
        trunk.norm.weight.copy_(torch.tensor(scale))  # type: ignore[union-attr, operator]
        trunk.norm.bias.copy_(torch.tensor(offset))  # type: ignore[union-attr, operator]
    return TwoHeads(trunk, feature_dim=4, num_classes=2)


def dead(network: nn.Module, batches: list[Tensor], units: Units | None = None, **options) -> dict[str, list[bool]]:
    found = find_dead(network, units or units_of(network), batches, settings=DeathSettings(**options), runtime=RUNTIME)
    return {name: mask.tolist() for name, mask in found.dead.items()}


def test_it_is_the_output_that_counts_not_the_scale():
    net = one_layer(nn.ReLU(), scale=[0, 0, 1, 1], offset=[-1, 1, 0, -20])
    batch = images(8, 1, 4, 4)
    assert dead(net, [batch]) == {"only": [True, False, False, True]}


def test_one_pixel_of_one_sample_is_life():
    net = one_layer(nn.ReLU(), scale=[1, 1, 1, 1], offset=[-5, -5, -5, -5])
    silent = torch.zeros(6, 1, 4, 4)
    assert dead(net, [silent, silent]) == {"only": [True] * 4}
    spark = silent.clone()
    spark[3, 0, 2, 1] = 6.0
    assert dead(net, [silent, spark, silent]) == {"only": [False] * 4}


def test_a_block_output_is_judged_after_the_sum():
    net = tiny()
    with torch.no_grad():
        net.get_parameter("trunk.norm2.weight")[:] = 0.0
        net.get_parameter("trunk.norm2.bias")[:] = -0.1
        net.get_parameter("trunk.norm2.bias")[5] = -1e6
    found = dead(net, [images(32, 2, 4, 4)])
    assert found["out"] == [False] * 5 + [True]  # the stem's part of the sum is positive, but for the last


def test_eval_mode_running_statistics_and_nothing_left_behind():
    net = tiny().train()
    net.trunk.norm1.eval()
    before, batch = copy.deepcopy(net.state_dict()), images(32, 2, 4, 4)
    flags = {name: module.training for name, module in net.named_modules()}
    state = torch.get_rng_state()
    for options in ({}, {"require_train_dead": True}):
        found = dead(net, [batch, batch], **options)
        assert {name: module.training for name, module in net.named_modules()} == flags
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(module._forward_hooks for module in net.modules())
        assert set(found) == {"stem", "inner", "out"}


def test_dead_in_train_mode_can_be_asked_for_too():
    net = one_layer(nn.ReLU(), scale=[1, 1, 1, 1], offset=[-1, -50, -1, -1]).train()
    net.trunk.norm.running_mean.fill_(30.0)  # type: ignore[union-attr]
    batch = images(16, 1, 4, 4)
    assert dead(net, [batch]) == {"only": [True] * 4}
    assert dead(net, [batch], require_train_dead=True) == {"only": [False, True, False, False]}


def test_every_unit_killed_by_hand_is_found_in_every_residual_mode():
    for mode in ("per_block", "stage_shared", "inner_only"):
        net = tiny().eval()
        units = units_of(net).in_mode(mode)
        batches = [images(64, 2, 4, 4, seed=seed) for seed in (3, 4)]
        alive = dead(net, batches, units)
        wanted = some_dead(units)
        kill(net, units, wanted)
        found = dead(net, batches, units)
        for name, mask in wanted.items():
            assert not any(alive[name])
            assert found[name] == mask.tolist(), (mode, name)


def test_eps_and_sum_and_their_defaults():
    net = one_layer(nn.GELU(), scale=[1, 1, 0, 0], offset=[-5, 0, -0.5, 0.5])
    batch = images(8, 1, 4, 4).clamp(-1, 1)
    assert dead(net, [batch], mode="exact")["only"] == [False] * 4
    assert dead(net, [batch], mode="eps", eps=1e-3)["only"] == [True, False, False, False]
    assert dead(net, [batch], mode="sum")["only"][2:] == [True, False]  # constant -0.15, constant 0.35
    assert dead(net, [batch]) == dead(net, [batch], mode="sum")
    relu = one_layer(nn.ReLU(), scale=[1, 1, 0, 0], offset=[-5, 0, -0.5, 0.5])
    assert dead(relu, [batch])["only"] == dead(relu, [batch], mode="exact")["only"] == [True, False, True, False]


def test_a_sum_must_be_low_in_every_minibatch():
    net = one_layer(nn.LeakyReLU(0.5), scale=[1, 1, 1, 1], offset=[0, 0, 0, 0])
    low, high = torch.full((4, 1, 4, 4), -1.0), torch.full((4, 1, 4, 4), 1.0)
    assert dead(net, [low, low], mode="sum")["only"] == [True] * 4
    assert dead(net, [torch.cat([low, low, high])], mode="sum")["only"] == [True] * 4
    assert dead(net, [low, low, high], mode="sum")["only"] == [False] * 4


def test_constants_and_means_are_reported_for_folding():
    net = one_layer(nn.Tanh(), scale=[0, 0, 1, 1], offset=[0.5, -2, 0, 40])
    batches = [images(8, 1, 4, 4, seed=seed) for seed in (1, 2)]
    settings = DeathSettings(mode="saturated_const", eps=1e-6)
    found = find_dead(net, units_of(net), batches, settings=settings, runtime=RUNTIME)
    assert found.dead["only"].tolist() == [True, True, False, True]
    wanted = torch.tanh(torch.tensor([0.5, -2, 40]))
    torch.testing.assert_close(found.constants["only"][found.dead["only"]], wanted)
    found = find_dead(net, units_of(net), batches, settings=DeathSettings(mode="sum"), runtime=RUNTIME)
    with torch.no_grad():
        mean = net.eval().features(torch.cat(batches)).mean(dim=0)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(found.constants["only"], mean)
    for options in ({"mode": "exact"}, {"mode": "sum", "fold_mean": False}):
        found = find_dead(net, units_of(net), batches, settings=DeathSettings(**options), runtime=RUNTIME)
        assert found.constants == {}


def test_a_constant_that_a_skip_carries_on_stays():
    net = tiny()
    with torch.no_grad():
        for norm in ("stem_norm", "norm1"):
            net.get_parameter(f"trunk.{norm}.weight")[:] = 0.0
            net.get_parameter(f"trunk.{norm}.bias")[:] = 0.7
            net.get_parameter(f"trunk.{norm}.bias")[1] = -0.7
    found = dead(net, [images(8, 2, 4, 4)], mode="saturated_const", eps=1e-6)
    assert found["stem"] == [False, True, False, False, False, False]
    assert found["inner"] == [True] * 5


def test_tokens_have_their_units_in_the_last_axis():
    trunk = OneLayer(nn.ReLU(), linear=True)
    with torch.no_grad():
        trunk.layer.weight.copy_(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 1, 0]]))
    net = TwoHeads(trunk, feature_dim=4, num_classes=2)
    tokens = torch.rand(5, 4, 3) + 0.1  # as many tokens as units
    assert dead(net, [tokens])["only"] == [False, True, True, False]


@pytest.mark.parametrize("options", [{"mode": "some"}, {"eps": -1.0}, {"num_samples": 0}, {"final_num_samples": -3}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=f"method.death.{next(iter(options))} is"):
        DeathSettings(**options)
