"""Scores of units against numbers worked out by hand, finite differences and an explicit Hessian."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Batch
from robustlab.models.units import Reader, Units, UnitSet
from robustlab.pruning.scores import (
    crop_scores,
    gates,
    magnitude_scores,
    random_scores,
    refreshed_statistics,
    scale_scores,
    snap_scores,
)


class Tiny(nn.Module):
    """Two hidden layers: a convolution with BatchNorm and a linear layer, ReLU or a smooth activation after each."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.conv, self.norm, self.act1 = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), activation()
        self.hidden, self.act2, self.head = nn.Linear(3, 4), activation(), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.act1(self.norm(self.conv(images)))
        return self.head(self.act2(self.hidden(maps.mean(dim=(2, 3)))))


UNITS = Units(
    (
        UnitSet("conv", 3, ("act1",), ("conv", "norm"), (Reader("hidden"),)),
        UnitSet("hidden", 4, ("act2",), ("hidden",), (Reader("head"),)),
    )
)


def tiny(activation: type[nn.Module] = nn.ReLU) -> Tiny:
    torch.manual_seed(0)
    network = Tiny(activation).double()
    nn.init.normal_(network.norm.weight)
    nn.init.normal_(network.norm.bias)
    return network


def some_batches(count: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        Batch(
            torch.arange(5),
            torch.randint(3, (5,), generator=generator),
            (torch.randn(5, 2, 4, 4, dtype=torch.float64, generator=generator),),
            5,
        )
        for _ in range(count)
    ]


def gated_loss(network: Tiny, flat: Tensor, batch: Batch) -> Tensor:
    """The loss as a function of all gates, written out by hand; the network is in eval mode."""
    first, second = flat[:3], flat[3:]
    maps = network.act1(network.norm(network.conv(batch.images)) * first[:, None, None])
    logits = network.head(network.act2(network.hidden(maps.mean(dim=(2, 3))) * second))
    assert batch.targets is not None
    return F.cross_entropy(logits, batch.targets)


def test_magnitude_is_the_norm_of_all_that_writes_a_unit():
    network = nn.Sequential(nn.Conv2d(1, 2, (1, 2)), nn.BatchNorm2d(2), nn.ReLU())
    network[0].weight.data = torch.tensor([[[[1.0, -2.0]]], [[[0.0, 3.0]]]])
    network[0].bias.data = torch.tensor([-0.5, 4.0])
    network[1].weight.data = torch.tensor([2.0, 0.0])
    network[1].bias.data = torch.tensor([-1.0, 12.0])
    units = Units((UnitSet("all", 2, ("2",), ("0", "1"), ()),))
    assert magnitude_scores(network, units, norm="l1")["all"].tolist() == [6.5, 19.0]
    wanted = torch.tensor([1 + 4 + 0.25 + 4 + 1, 9 + 16 + 144]).sqrt()
    torch.testing.assert_close(magnitude_scores(network, units, norm="l2")["all"], wanted)


def test_scale_scores_are_the_mean_absolute_gammas_of_the_writers():
    network = nn.ModuleDict({"a": nn.BatchNorm1d(2), "conv": nn.Conv1d(2, 2, 1), "b": nn.BatchNorm1d(2)})
    network["a"].weight.data = torch.tensor([1.0, -3.0])
    network["b"].weight.data = torch.tensor([-2.0, 0.0])
    units = Units((UnitSet("all", 2, (), ("a", "conv", "b"), ()),))
    assert scale_scores(network, units)["all"].tolist() == [1.5, 1.5]
    with pytest.raises(ConfigError, match=r"exclude=\[plain\]"):
        scale_scores(network, Units((UnitSet("plain", 2, (), ("conv",), ()),)))


def test_random_scores_are_a_function_of_key_and_name():
    one = random_scores({"a": 5, "b": 5}, key=3)
    again = random_scores({"b": 5, "a": 5}, key=3)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["a"], one["b"])
    assert not torch.equal(one["a"], random_scores({"a": 5}, key=4)["a"])


def test_snap_is_the_derivative_of_the_summed_loss_for_the_gates():
    network, batches = tiny(), some_batches()
    found = snap_scores(network, UNITS, batches)
    network.eval()
    step = 1e-6
    for index, value in enumerate(torch.cat([found["conv"], found["hidden"]])):
        ends = []
        for sign in (1, -1):
            flat = torch.ones(7, dtype=torch.float64)
            flat[index] += sign * step
            with torch.no_grad():
                ends.append(sum(float(gated_loss(network, flat, batch)) for batch in batches))
        assert value == pytest.approx(abs(ends[0] - ends[1]) / (2 * step), abs=1e-7)
    assert (found["conv"] > 1e-4).any()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_crop_is_the_hessian_for_the_gates_times_the_gradient_of_each_batch(activation):
    network, batches = tiny(activation), some_batches()
    found = crop_scores(network, UNITS, batches)
    network.eval()
    wanted = torch.zeros(7, dtype=torch.float64)
    for batch in batches:
        ones = torch.ones(7, dtype=torch.float64)
        loss = lambda flat, batch=batch: gated_loss(network, flat, batch)  # noqa: E731
        hessian = torch.autograd.functional.hessian(loss, ones)
        gradient = torch.func.grad(loss)(ones)
        wanted += hessian @ gradient
    torch.testing.assert_close(torch.cat([found["conv"], found["hidden"]]), wanted.abs(), rtol=1e-9, atol=1e-12)
    assert wanted.abs().max() > 1e-4


def test_a_dead_unit_scores_zero():
    network = tiny()
    network.hidden.bias.data[2] = -100
    batches = some_batches()
    assert snap_scores(network, UNITS, batches)["hidden"][2] == 0
    assert crop_scores(network, UNITS, batches)["hidden"][2] == 0


@pytest.mark.parametrize("score", [snap_scores, crop_scores])
def test_scoring_leaves_no_trace(score):
    network = tiny().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    score(network, UNITS, some_batches())
    assert network.training
    assert network.norm.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_units_of_several_activations_share_a_gate():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.act1, self.act2 = nn.Linear(2, 2), nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act2(self.act1(self.one(x)) + 1)

    network, inputs = Twice(), torch.randn(4, 2)
    units = Units((UnitSet("stream", 2, ("act1", "act2"), ("one",), ()),))
    with gates(network, units) as found, torch.no_grad():
        found["stream"].copy_(torch.tensor([2.0, 3.0]))
        gated = network(inputs)
    before = network.one(inputs)
    scale = torch.tensor([2.0, 3.0])
    torch.testing.assert_close(gated, F.relu((F.relu(before * scale) + 1) * scale))


def test_gates_stand_on_the_channels_of_tokens():
    network = nn.Sequential(nn.Linear(2, 3), nn.GELU())
    units = Units((UnitSet("hidden", 3, ("1",), ("0",), ()),))
    tokens = torch.randn(2, 5, 2)
    with gates(network, units) as found, torch.no_grad():
        found["hidden"].copy_(torch.tensor([0.0, 1.0, 2.0]))
        out = network(tokens)
    torch.testing.assert_close(out, F.gelu(network[0](tokens) * torch.tensor([0.0, 1.0, 2.0])))


def test_second_derivatives_exist_through_attention():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.act, self.head = nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.act(self.hidden(images.flatten(1, 2)))
            mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
            return self.head(mixed.mean(dim=1))

    torch.manual_seed(0)
    units = Units((UnitSet("hidden", 4, ("act",), ("hidden",), ()),))
    batch = Batch(torch.arange(2), torch.tensor([0, 2]), (torch.randn(2, 2, 3, 4),), 2)
    assert (crop_scores(Attentive(), units, [batch])["hidden"] > 0).all()


def test_refreshed_statistics_are_the_averages_over_the_batches_and_go_again():
    network, batches = tiny().train(), some_batches()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        maps = [network.conv(batch.images) for batch in batches]
    with refreshed_statistics(network, batches):
        mean = torch.stack([one.mean(dim=(0, 2, 3)) for one in maps]).mean(dim=0)
        var = torch.stack([one.transpose(0, 1).flatten(1).var(dim=1) for one in maps]).mean(dim=0)
        torch.testing.assert_close(network.norm.running_mean, mean)
        torch.testing.assert_close(network.norm.running_var, var)
        refreshed = snap_scores(network, UNITS, batches)
    assert network.training
    assert network.norm.momentum == 0.1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not torch.allclose(refreshed["conv"], snap_scores(network, UNITS, batches)["conv"])
