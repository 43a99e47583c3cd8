import torch
from hypothesis import given
from hypothesis import strategies as st

from robustlab.core import rng


def test_keys_depend_on_every_part_and_on_its_type():
    keys = {
        rng.fold(0),
        rng.fold(1),
        rng.fold(0, "order"),
        rng.fold(0, "order", 1),
        rng.fold(0, "order", "1"),
        rng.fold(0, "order1"),
        rng.fold(0, 1, "order"),
    }
    assert len(keys) == 7
    assert rng.fold(3, "noise", 2) == rng.fold(3, "noise", 2)


def test_the_key_of_a_purpose_never_changes():
    assert rng.fold(0, "order", 0) == 6014060117722951531  # results of earlier runs depend on it


@given(st.integers(0, 2**63 - 1), st.integers(1, 8), st.integers(1, 64))
def test_uniforms_are_in_range_and_a_function_of_the_sample_alone(key, count, size):
    index = torch.arange(size) * 7
    values = rng.uniform(key, index, count)
    assert values.shape == (size, count)
    assert values.dtype == torch.float32
    assert (values >= 0).all()
    assert (values < 1).all()
    order = torch.randperm(size, generator=rng.generator(key))
    assert torch.equal(rng.uniform(key, index[order], count), values[order])


def test_uniforms_look_uniform_and_uncorrelated():
    values = rng.uniform(rng.fold(0, "test"), torch.arange(20_000), 4).double()
    assert (values.mean(0) - 0.5).abs().max() < 0.01
    assert (values.var(0) - 1 / 12).abs().max() < 0.002
    correlation = torch.corrcoef(torch.cat([values, values.roll(1, 0)], dim=1).T)
    assert (correlation - torch.eye(8)).abs().max() < 0.03
    other = rng.uniform(rng.fold(1, "test"), torch.arange(20_000), 4).double()
    assert abs(torch.corrcoef(torch.stack([values[:, 0], other[:, 0]]))[0, 1]) < 0.03


def test_permutations_are_seeded():
    assert torch.equal(rng.permutation(5, 100), rng.permutation(5, 100))
    assert not torch.equal(rng.permutation(5, 100), rng.permutation(6, 100))
    assert torch.equal(rng.permutation(5, 100).sort().values, torch.arange(100))
