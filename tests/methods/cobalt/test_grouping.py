"""Grouping: attention over slots, slot vectors, and which slots are active."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustlab.methods.groups.cobalt import grouping

sizes = st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))
temperatures = st.floats(0.01, 10)


def draw(size, seed=0):
    """Features [B, d, h, w] and slots [N, d]."""
    images, slots, dim, height, width = size
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, dim, height, width, generator=generator)
    return features, torch.randn(slots, dim, generator=generator)


@given(sizes, temperatures, st.integers(0, 99))
def test_attention_is_a_distribution_over_slots_at_each_place(size, temperature, seed):
    features, slots = draw(size, seed)
    found = grouping.attention(grouping.assignment_logits(features, slots), temperature)
    torch.testing.assert_close(found.sum(dim=1), torch.ones_like(found[:, 0]), atol=1e-6, rtol=0)


@given(sizes, temperatures, st.integers(0, 99))
def test_slots_of_constant_features_are_that_constant(size, temperature, seed):
    features, slots = draw(size, seed)
    constant = features[:, :, :1, :1].expand_as(features)
    groups = grouping.group(constant, slots, temperature)
    expected = constant[:, :, 0, 0][:, None].expand_as(groups.vectors)
    torch.testing.assert_close(groups.vectors, expected, atol=1e-5, rtol=1e-5)


def test_slot_vectors_are_means_of_features_weighted_by_attention():
    features, slots = draw((2, 3, 4, 5, 6))
    groups = grouping.group(features, slots, 0.3)
    weights = grouping.attention(groups.logits, 0.3)
    expected = torch.einsum("bnhw,bdhw->bnd", weights, features) / weights.sum(dim=(2, 3))[..., None]
    torch.testing.assert_close(groups.vectors, expected)
    assert groups.logits.abs().max() <= 1 + 1e-6


@given(sizes, st.floats(0.01, 100), st.floats(0.01, 100), st.integers(0, 99))
def test_lengths_of_features_and_slots_do_not_matter_to_the_logits(size, first, second, seed):
    features, slots = draw(size, seed)
    scaled = grouping.assignment_logits(features * first, slots * second)
    torch.testing.assert_close(scaled, grouping.assignment_logits(features, slots), atol=1e-5, rtol=1e-5)


@given(sizes, st.integers(0, 99))
def test_permuted_slots_give_permuted_groups(size, seed):
    features, slots = draw(size, seed)
    order = torch.randperm(len(slots), generator=torch.Generator().manual_seed(seed))
    groups, permuted = grouping.group(features, slots, 0.07), grouping.group(features, slots[order], 0.07)
    torch.testing.assert_close(permuted.logits, groups.logits[:, order])
    torch.testing.assert_close(permuted.vectors, groups.vectors[:, order], atol=1e-5, rtol=1e-4)


def test_a_slot_is_active_where_it_wins_a_place():
    logits = torch.tensor([[[[0.9, 0.1]], [[0.2, 0.8]], [[0.3, 0.3]]]])
    assert grouping.winners(logits).tolist() == [[[0, 1]]]
    assert grouping.places(logits).tolist() == [[1, 1, 0]]
    assert grouping.active(logits).tolist() == [[True, True, False]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_grouped_in_float32(dtype):
    features, slots = draw((2, 3, 4, 2, 2))
    groups = grouping.group(features.to(dtype), slots, 0.07)
    assert groups.logits.dtype == groups.vectors.dtype == torch.float32
