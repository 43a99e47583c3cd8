"""Skips that join what is alive on both sides."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustlab.models.skip import Selector

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def draw(channels: int, seed: int, layout=torch.contiguous_format, side: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, channels, side, side, generator=generator, dtype=torch.float64)
    return maps.to(memory_format=layout).requires_grad_()


def connected(source: Tensor, target: Tensor) -> Selector:
    selector = Selector()
    selector.connect(source, target)
    return selector


def matrix(source: Tensor, target: Tensor) -> Tensor:
    """The 0/1 matrix that carries `source` to `target`: float64 [len(target), len(source)]."""
    return (target[:, None] == source[None, :]).double()


live = st.sets(st.integers(0, 6), min_size=1).map(lambda chosen: torch.tensor(sorted(chosen)))


@settings(max_examples=60)
@given(source=live, target=live, layout=st.sampled_from(LAYOUTS))
def test_a_selector_is_a_dense_matrix_of_zeros_and_ones(source, target, layout):
    x, out = draw(len(source), 0, layout), draw(len(target), 1, layout)
    selector = connected(source, target)
    expected = out + torch.einsum("ts,bshw->bthw", matrix(source, target), x)
    actual = selector(x, out)
    assert torch.equal(actual, expected)
    assert actual.is_contiguous(memory_format=layout)
    weights = draw(len(target), 2)
    gradients = torch.autograd.grad((weights * actual).sum(), (x, out), allow_unused=True)
    wanted = torch.autograd.grad((weights * expected).sum(), (x, out))
    for gradient, want in zip(gradients, wanted, strict=True):
        assert torch.equal(torch.zeros_like(want) if gradient is None else gradient, want)


def test_it_starts_as_the_identity_and_goes_back_to_it():
    x, out = draw(5, 0), draw(5, 1)
    selector = Selector()
    assert torch.equal(selector(x, out), out + x)
    selector.connect(torch.tensor([0, 1, 2, 4, 5]), torch.tensor([0, 1, 3, 4, 5]))
    assert not torch.equal(selector(x, out), out + x)
    selector.connect(torch.arange(5), torch.arange(5))
    assert torch.equal(selector(x, out), out + x)
    assert selector.source is None
    assert selector.target is None


def test_the_same_channels_lost_on_both_sides_leave_a_plain_addition():
    selector = connected(torch.tensor([1, 4, 6]), torch.tensor([1, 4, 6]))
    assert selector.source is None
    assert selector.target is None


def test_positions_are_those_among_the_channels_left():
    selector = connected(torch.tensor([1, 4, 6, 7]), torch.tensor([0, 4, 7, 9]))
    assert selector.source is not None
    assert selector.target is not None
    assert (selector.source.tolist(), selector.target.tolist()) == ([1, 3], [1, 2])


def test_what_it_joins_is_no_state_but_goes_along_with_copies_and_devices():
    selector = connected(torch.tensor([0, 1]), torch.tensor([1, 2]))
    assert selector.state_dict() == {}
    assert not list(selector.parameters())
    x, out = draw(2, 0), draw(2, 1)
    assert torch.equal(copy.deepcopy(selector)(x, out), selector(x, out))
    assert {buffer.device.type for buffer in selector.to("meta").buffers()} == {"meta"}
    assert all(buffer.dtype == torch.int64 for buffer in selector.double().buffers())


def test_positions_go_to_the_device_asked_for():
    selector = Selector()
    selector.connect(torch.tensor([0, 1]), torch.tensor([1, 2]), device=torch.device("meta"))
    assert [buffer.device.type for buffer in selector.buffers()] == ["meta", "meta"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps_of_one_place_and_half_precision(layout):
    selector = connected(torch.tensor([0, 2]), torch.tensor([0, 1, 2]))
    x, out = draw(2, 0, layout, side=1).bfloat16(), draw(3, 1, layout, side=1).bfloat16()
    expected = out.clone()
    expected[:, [0, 2]] += x
    assert torch.equal(selector(x, out), expected)


def test_second_derivatives_exist():
    x, out = draw(4, 0), draw(5, 1)
    selector = connected(torch.tensor([0, 1, 2, 5]), torch.tensor([0, 2, 3, 4, 5]))
    assert torch.autograd.gradgradcheck(lambda a, b: selector(a, b).square().sum(), (x, out))
