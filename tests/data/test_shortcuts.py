"""Attributes that agree with the class for an exact share; permutations and flips keyed by the sample's number."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustlab.core.errors import ConfigError
from robustlab.data.sources.shortcuts import aligned, flipped, shuffled


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(2, 5), st.floats(0.0, 1.0), st.integers(0, 2**40)
)
def test_shares_are_exact_in_each_class(labels, num_attributes, share, key):
    y = torch.tensor(labels) % num_attributes
    a = aligned(y, share, num_attributes=num_attributes, key=key, index=torch.arange(len(y)))
    for label in range(num_attributes):
        counts = torch.bincount(a[y == label], minlength=num_attributes)
        assert int(counts[label]) == round(share * int(counts.sum()))
        others = torch.cat([counts[:label], counts[label + 1 :]])
        assert int(others.max()) - int(others.min()) <= 1


def test_who_conflicts_depends_on_key_and_number_only():
    y = torch.tensor([0, 1] * 50)
    index = torch.arange(100)
    a = aligned(y, 0.9, num_attributes=2, key=1, index=index)
    order = shuffled(7, 100)
    assert torch.equal(aligned(y[order], 0.9, num_attributes=2, key=1, index=index[order]), a[order])
    assert not torch.equal(aligned(y, 0.9, num_attributes=2, key=2, index=index), a)
    with pytest.raises(ConfigError, match=r"correlation must lie in \[0, 1\], not 1.5"):
        aligned(y, 1.5, num_attributes=2, key=1, index=index)


def test_shuffled_and_flipped():
    assert shuffled(3, 50).sort().values.tolist() == list(range(50))
    assert not torch.equal(shuffled(3, 50), shuffled(4, 50))
    values = torch.tensor([0, 1] * 5000)
    index = torch.arange(10000)
    changed = flipped(values, 0.25, key=5, index=index) != values
    assert float(changed.double().mean()) == pytest.approx(0.25, abs=0.02)
    assert not flipped(values, 0.0, key=5, index=index).ne(values).any()
    assert flipped(values, 1.0, key=5, index=index).ne(values).all()
