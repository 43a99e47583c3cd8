import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.models.units import Reader, Units, UnitSet, units_of
from robustlab.pruning.slicing import expanded, sliced
from robustlab.pruning.surgery import Surgeon
from tests.pruning.surgical import assert_consistent, count_by_hand, images, kill, some_dead, tiny

BATCH = images(16, 2, 4, 4)


def mask(width: int, *dead: int) -> torch.Tensor:
    found = torch.zeros(width, dtype=torch.bool)
    found[list(dead)] = True
    return found


def operated(dead, *, seed=0, **options):
    """A tiny network whose `dead` units were killed and removed, and its surgeon."""
    network = tiny(seed).eval()
    kill(network, units_of(network), dead)
    surgeon = Surgeon(network, units_of(network), **options)
    surgeon.remove(dead)
    return network, surgeon


def test_what_is_cut():
    network, surgeon = operated({"stem": mask(6, 1), "inner": mask(5, 0, 4), "out": mask(6, 2, 3)})
    trunk = network.trunk
    assert trunk.stem.weight.shape == (5, 2, 3, 3)
    assert (trunk.stem.in_channels, trunk.stem.out_channels) == (2, 5)
    assert trunk.conv1.weight.shape == (3, 5, 3, 3)
    assert trunk.norm1.weight.shape == trunk.norm1.running_var.shape == (3,)
    assert trunk.norm1.num_features == 3
    assert trunk.conv2.weight.shape == (4, 3, 1, 1)
    assert network.classifier.weight.shape == (5, 64)
    assert network.projection[0].in_features == network.feature_dim == 64
    assert network.projection[1].num_features == 3
    assert surgeon.live["stem"].tolist() == [0, 2, 3, 4, 5]
    assert surgeon.live["out"].tolist() == [0, 1, 4, 5]
    assert (trunk.skip.source.tolist(), trunk.skip.target.tolist()) == ([0, 3, 4], [0, 2, 3])
    assert surgeon.removed == 5
    assert surgeon.live_counts() == {"stem": 5, "inner": 3, "out": 4}
    assert surgeon.neuron_sparsity() == pytest.approx(5 / 17)
    assert surgeon.layer_sparsity() == pytest.approx({"stem": 1 / 6, "inner": 2 / 5, "out": 1 / 3})
    assert_consistent(surgeon)


def test_flattened_maps_own_neighbouring_columns():
    weight = tiny().classifier.weight.detach().clone()
    network, _ = operated({"out": mask(6, 1)})
    assert torch.equal(network.classifier.weight, torch.cat([weight[:, :16], weight[:, 32:]], dim=1))
    assert expanded(torch.tensor([0, 2]), 3).tolist() == [0, 1, 2, 6, 7, 8]


@settings(max_examples=40)
@given(st.data())
def test_any_sequence_of_removals_changes_nothing(data):
    network = tiny(data.draw(st.integers(0, 3))).eval()
    units = units_of(network)
    shadow = copy.deepcopy(network)
    options = {"min_width": data.draw(st.integers(1, 3)), "round_to": data.draw(st.sampled_from([1, 2, 4]))}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    surgeon = Surgeon(network, units, optimizer=optimizer, copies=[shadow], **options)
    whole = copy.deepcopy(network)
    gone: dict[str, set[int]] = {one.name: set() for one in units.sets}
    for _ in range(data.draw(st.integers(1, 4))):
        dead = {}
        for name in data.draw(st.sets(st.sampled_from(sorted(gone)))):
            chosen = data.draw(st.sets(st.integers(0, len(surgeon.live[name]) - 1)))
            dead[name] = mask(len(surgeon.live[name]), *chosen) | surgeon.idle[name]
            gone[name] |= set(surgeon.live[name][dead[name]].tolist())
        kill(whole, units, {name: mask(units[name].width, *found) for name, found in gone.items()})
        for place in (network, shadow):
            kill(place, units, dead)
        before = {name: len(live) for name, live in surgeon.live.items()}
        removed = surgeon.remove(dead)
        assert removed == sum(width - len(surgeon.live[name]) for name, width in before.items())
        assert_consistent(surgeon)
        assert surgeon.live_counts() == {name: units[name].width - len(found) for name, found in gone.items()}
        for place in (network, shadow):
            torch.testing.assert_close(place(BATCH), whole(BATCH), rtol=1e-5, atol=1e-5)
        widths = {name: len(live) for name, live in surgeon.live.items()}
        assert sum(one.numel() for one in network.parameters()) == count_by_hand(whole, units, widths)


def test_a_set_keeps_a_placeholder_that_counts_as_dead():
    dead = {"stem": mask(6, *range(6)), "inner": mask(5, *range(5)), "out": mask(6, *range(6))}
    network, surgeon = operated(dead)
    assert [len(live) for live in surgeon.live.values()] == [1, 1, 1]
    assert all(idle.tolist() == [True] for idle in surgeon.idle.values())
    assert surgeon.neuron_sparsity() == 1
    network.train()(BATCH).sum().backward()
    assert network.trunk.stem.weight.grad.shape == (1, 2, 3, 3)
    again = surgeon.remove({name: mask(1, 0) for name in dead})  # the next check finds the placeholders dead again
    assert again == 0
    assert surgeon.removed == 14


def test_placeholders_that_come_to_life_count_again():
    _, surgeon = operated({"inner": mask(5, *range(5))}, min_width=2)
    assert surgeon.live_counts()["inner"] == 0
    surgeon.remove({"inner": mask(2, 0)})
    assert surgeon.live_counts()["inner"] == 1


def test_widths_are_rounded_up_with_the_units_that_died_last():
    _, surgeon = operated({"out": mask(6, 0)}, round_to=4)
    assert surgeon.live["out"].tolist() == [0, 1, 2, 3, 4, 5]  # five need eight, more than there ever were
    assert surgeon.idle["out"].tolist() == [True] + [False] * 5
    assert surgeon.remove({"out": mask(6, 0, 4, 5)}) == 2
    assert surgeon.live["out"].tolist() == [1, 2, 3, 4]
    assert surgeon.idle["out"].tolist() == [False, False, False, True]
    assert surgeon.live_counts()["out"] == 3


def test_excluded_sets_stay_whole_and_unknown_ones_are_refused():
    _, surgeon = operated({"inner": mask(5, 1), "out": mask(6, 1)}, exclude=["out"])
    assert surgeon.live_counts() == {"stem": 6, "inner": 4, "out": 6}
    with pytest.raises(ConfigError, match=r"no set of units 'iner'; did you mean inner"):
        Surgeon(tiny(), units_of(tiny()), exclude=["iner"])
    with pytest.raises(ConfigError, match="round_to=0"):
        Surgeon(tiny(), units_of(tiny()), round_to=0)


def test_other_residual_modes_leave_the_skip_alone():
    for mode in ("stage_shared", "inner_only"):
        network = tiny().eval()
        units = units_of(network).in_mode(mode)
        dead = some_dead(units)
        kill(network, units, dead)
        expected = network(BATCH)
        surgeon = Surgeon(network, units)
        assert surgeon.remove(dead) == sum(int(one.sum()) for one in dead.values())
        assert (network.trunk.skip.source, network.trunk.skip.target) == (None, None)
        torch.testing.assert_close(network(BATCH), expected, rtol=0, atol=1e-5)


def test_the_skip_is_a_plain_addition_while_both_sides_agree():
    network, _ = operated({"stem": mask(6, 1, 2), "out": mask(6, 1, 2)})
    assert (network.trunk.skip.source, network.trunk.skip.target) == (None, None)


@pytest.mark.parametrize("channels_last", [True, False])
def test_tensors_keep_their_memory_format(channels_last):
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    network = tiny().to(memory_format=wanted)
    optimizer = torch.optim.AdamW(network.parameters())
    network(BATCH.to(memory_format=wanted)).square().sum().backward()
    optimizer.step()
    surgeon = Surgeon(network, units_of(network), optimizer=optimizer)
    surgeon.remove({"stem": mask(6, *range(6)), "inner": mask(5, 0), "out": mask(6, 1)})
    for name in ("stem", "conv1", "conv2"):
        weight = network.trunk.get_submodule(name).weight
        for tensor in (weight, weight.grad, optimizer.state[weight]["exp_avg"]):
            # By strides: is_contiguous() accepts either format where the kernel or the number of channels is 1.
            assert tensor.stride() == torch.empty(tensor.shape).clone(memory_format=wanted).stride()


def test_frozen_and_double_precision_parameters_stay_so():
    network = tiny().double()
    network.trunk.stem.weight.requires_grad_(False)
    Surgeon(network, units_of(network)).remove({"stem": mask(6, 0)})
    assert not network.trunk.stem.weight.requires_grad
    assert network.trunk.conv1.weight.requires_grad
    assert {one.dtype for one in network.parameters()} == {torch.float64}


@torch.no_grad()
def constant(network, norm, unit, value):
    norm = network.trunk.get_submodule(norm)
    norm.weight[unit], norm.bias[unit] = 0, value


@pytest.mark.parametrize("training", [False, True])
def test_constants_are_folded_into_the_next_bias_or_running_mean(training):
    network = tiny()
    units = units_of(network)
    kill(network, units, {"stem": mask(6, 3)})  # else the skip adds to unit 3 of "out"
    constant(network, "norm1", 2, 0.7)
    constant(network, "norm2", 3, 0.4)
    network.train(training)
    probe = copy.deepcopy(network)
    expected = probe(BATCH)
    without = copy.deepcopy(network)
    dead = {"inner": mask(5, 2), "out": mask(6, 3)}
    surgeon = Surgeon(network, units)
    constants = {"inner": torch.full((5,), 0.7), "out": torch.full((6,), 0.4)}
    assert surgeon.remove(dead, constants=constants) == 2
    torch.testing.assert_close(network(BATCH), expected, rtol=1e-5, atol=1e-5)
    Surgeon(without, units).remove(dead)
    assert (without(BATCH) - expected).abs().max() > 1e-2


def test_constants_before_a_padded_convolution_are_exact_inside_only():
    network = tiny().eval()
    units = units_of(network)
    constant(network, "stem_norm", 2, 0.5)
    whole = copy.deepcopy(network)
    kill(whole, units, {"out": mask(6, 2)})  # the skip of a constant has nothing to fold into
    kill(network, units, {"out": mask(6, 2)})
    surgeon = Surgeon(network, units.in_mode("per_block"))
    surgeon.remove({"stem": mask(6, 2), "out": mask(6, 2)}, constants={"stem": torch.full((6,), 0.5)})
    seen = {}
    for name, one in (("cut", network), ("whole", whole)):
        hidden = one.trunk.stem_act(one.trunk.stem_norm(one.trunk.stem(BATCH)))
        seen[name] = one.trunk.norm1(one.trunk.conv1(hidden))
    difference = (seen["cut"] - seen["whole"]).abs()
    assert difference[..., 1:-1, 1:-1].max() < 1e-5
    assert difference.max() > 1e-2


def test_constants_reach_a_copy_through_its_own_weights():
    network, shadow = tiny(0).eval(), tiny(1).eval()
    units = units_of(network)
    for one in (network, shadow):
        constant(one, "norm1", 2, 0.7)
    expected = shadow(BATCH)
    surgeon = Surgeon(network, units, copies=[shadow])
    surgeon.remove({"inner": mask(5, 2)}, constants={"inner": torch.full((5,), 0.7)})
    torch.testing.assert_close(shadow(BATCH), expected, rtol=1e-5, atol=1e-5)


def test_the_state_resizes_a_whole_network(tmp_path):
    network, surgeon = operated({"stem": mask(6, 1), "inner": mask(5, *range(5)), "out": mask(6, 2, 3)}, round_to=2)
    torch.save({"units": surgeon.state_dict(), "network": network.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = tiny(5).eval()
    second = Surgeon(again, units_of(again), round_to=2)
    second.load_state_dict(state["units"])
    again.load_state_dict(state["network"])
    assert torch.equal(again(BATCH), network(BATCH))
    for name in surgeon.live:
        assert torch.equal(second.live[name], surgeon.live[name])
        assert torch.equal(second.idle[name], surgeon.idle[name])
    assert second.removed == surgeon.removed == 5
    assert_consistent(second)


def test_units_of_another_network_are_refused():
    _, surgeon = operated({"inner": mask(5, 1)})
    other = tiny()
    with pytest.raises(ConfigError, match="not among those of this network"):
        Surgeon(other, units_of(other).in_mode("inner_only")).load_state_dict(surgeon.state_dict())
    _, narrower = operated({"inner": mask(5, 2)})
    with pytest.raises(ConfigError, match="inner: 4"):
        narrower.load_state_dict(surgeon.state_dict())


class Chain(nn.Module):
    """Two layers around the units "hidden"; each test puts something there that cannot be cut."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.act = first, second, nn.ReLU()

    def units(self) -> Units:
        return Units((UnitSet("hidden", 4, ("act",), ("first",), (Reader("second"),)),))


def tied() -> Chain:
    network = Chain(nn.Linear(4, 4), nn.Linear(4, 4))
    network.second.weight = network.first.weight
    return network


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chain(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4)), "second is a convolution with 4 groups"),
        (lambda: Chain(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3)), "first is a convolution with 2 groups"),
        (lambda: Chain(nn.ConvTranspose2d(3, 4, 3), nn.Conv2d(4, 4, 3)), "first is a ConvTranspose2d"),
        (lambda: Chain(nn.Linear(3, 4), nn.LazyLinear(4)), "second.weight is a UninitializedParameter"),
        (lambda: Chain(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2)), "first computes its"),
        (tied, "shares a parameter"),
    ],
)
def test_what_cannot_be_cut_is_refused(make, message):
    network = make()
    with pytest.raises(ConfigError, match=message):
        Surgeon(network, network.units())
    Surgeon(network, network.units(), exclude=["hidden"])  # left alone, it does no harm


def test_sharded_parameters_are_refused():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    network = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        network.first.weight = nn.Parameter(distribute_tensor(network.first.weight, init_device_mesh("cpu", (1,))))
        with pytest.raises(ConfigError, match="weight is a DTensor"):
            Surgeon(network, network.units())
    finally:
        torch.distributed.destroy_process_group()


def test_state_of_unknown_layout_is_refused_and_nothing_is_cut():
    network = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.Adafactor(network.parameters(), lr=1e-2)
    surgeon = Surgeon(network, network.units(), optimizer=optimizer)
    surgeon.check_optimizer()  # it has no state yet
    network.second(network.first(images(5, 3))).sum().backward()
    optimizer.step()
    with pytest.raises(ConfigError, match=r"Adafactor keeps 'row_var', of shape \[4, 1\], for first.weight"):
        surgeon.remove({"hidden": mask(4, 1)})
    assert network.first.weight.shape == (4, 3)
    assert surgeon.removed == 0


def test_gradients_and_old_graphs_survive():
    network = tiny()
    units = units_of(network)
    network(BATCH).sum().backward()
    kept_for_later = network(BATCH).sum()
    gradient = network.trunk.conv2.weight.grad
    Surgeon(network, units).remove({"inner": mask(5, 1)})
    assert torch.equal(network.trunk.conv2.weight.grad, gradient[:, [0, 2, 3, 4]])
    network(BATCH).sum().backward()
    kept_for_later.backward()  # writes to the parameters that were, not to those that are
    assert network.trunk.conv2.weight.grad.shape == (6, 4, 1, 1)


def test_sliced_keeps_positions_of_several_axes():
    tensor = torch.arange(24.0).view(4, 6)
    assert sliced(tensor, {0: torch.tensor([1, 3]), 1: torch.tensor([0, 5])}).tolist() == [[6, 11], [18, 23]]
