"""The dictionary and the centre: what training moves without gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.core.errors import ConfigError
from robustlab.methods.groups.cobalt.dictionary import Dictionary, perplexity, update_centre
from robustlab.methods.groups.cobalt.discovery_settings import DictionarySettings
from tests.methods.cobalt.toy import CPU


def make(dim=3, seed=0, **options) -> Dictionary:
    chosen = {"codes": 4, "initial": "random", "reseed": False, **options}
    return Dictionary(DictionarySettings(**chosen), dim=dim, seed=seed, device=torch.device("cpu"))


def unit(count, dim=3, seed=0):
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def all_active(vectors):
    return torch.ones(len(vectors), dtype=torch.bool)


@settings(max_examples=30)
@given(st.integers(0, 99), st.floats(0, 1), st.booleans())
def test_codes_keep_unit_length(seed, momentum, reseed):
    dictionary = make(momentum=momentum, reseed=reseed, reseed_after=0.25, reseed_below=0.5)
    for step in range(4):
        dictionary.update(unit(6, seed=seed + step), all_active(unit(6)), total=4)
    torch.testing.assert_close(dictionary.codes.norm(dim=1), torch.ones(4))


def test_a_code_moves_towards_the_mean_of_its_members_and_others_stay():
    dictionary = make(momentum=0.8)
    dictionary.codes = torch.eye(4, 3)
    dictionary.codes[3] = -torch.eye(3)[0]
    members = F.normalize(torch.tensor([[1.0, 0.2, 0.0], [1.0, 0.0, 0.4]]), dim=1)
    inactive = torch.tensor([[0.0, 1.0, 0.1]])
    counts = dictionary.update(torch.cat([members, inactive]), torch.tensor([True, True, False]), total=1)
    assert counts.tolist() == [2, 0, 0, 0]
    expected = F.normalize(0.8 * torch.tensor([1.0, 0, 0]) + 0.2 * members.mean(dim=0), dim=0)
    torch.testing.assert_close(dictionary.codes[0], expected)
    assert torch.equal(dictionary.codes[1:3], torch.eye(4, 3)[1:3])


def test_momentum_one_freezes_the_dictionary():
    dictionary = make(momentum=1.0)
    before = dictionary.codes.clone()
    dictionary.update(unit(20), all_active(unit(20)), total=1)
    torch.testing.assert_close(dictionary.codes, before)


@given(st.integers(0, 99), st.floats(0.01, 100))
def test_assignments_do_not_depend_on_the_length_of_vectors(seed, scale):
    dictionary, vectors = make(seed=seed), torch.randn(9, 3, generator=torch.Generator().manual_seed(seed))
    distances = dictionary.distances(vectors)
    assert bool(((distances > -1e-5) & (distances < 4 + 1e-5)).all())
    torch.testing.assert_close(dictionary.distances(vectors * scale), distances, atol=1e-5, rtol=1e-5)
    expected = (F.normalize(vectors, dim=1)[:, None] - dictionary.codes).square().sum(dim=2)
    torch.testing.assert_close(distances, expected, atol=1e-5, rtol=1e-4)


def test_usage_is_a_moving_average_that_is_one_under_even_use():
    dictionary = make(reseed_after=0.5, reseed_below=0.01)
    dictionary.codes = torch.cat([torch.eye(3), -torch.eye(3)[:1]])
    for _ in range(3):
        dictionary.update(dictionary.codes.clone(), all_active(dictionary.codes), total=4)
    torch.testing.assert_close(dictionary.usage, torch.ones(4))
    dictionary.update(dictionary.codes[:1].clone(), torch.tensor([True]), total=4)  # momentum 0.01 ^ (1 / 2)
    torch.testing.assert_close(dictionary.usage, torch.tensor([0.1 + 0.9 * 4, 0.1, 0.1, 0.1]))


@pytest.mark.parametrize("total", [20, 184, 5000])
def test_a_code_that_nothing_uses_begins_again_after_a_share_of_the_run_however_short(total):
    """Two vectors at one end; of two codes there, the farther one never receives any."""
    dictionary = make(dim=2, codes=2, reseed=True, reseed_after=0.25, momentum=1.0)
    dictionary.codes = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    vectors = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1]]), dim=1)
    moved = 0
    for _ in range(total // 4 + 1):
        dictionary.update(vectors, all_active(vectors), total=total)
        moved += 1
        if dictionary.codes[1, 0] > 0:
            break
    assert moved == pytest.approx(total / 4, abs=1)
    assert bool((vectors == dictionary.codes[1]).all(dim=1).any())
    assert torch.equal(dictionary.codes[0], torch.tensor([1.0, 0.0]))
    assert dictionary.usage[1] == 1


def test_without_reseeding_it_stays_unused():
    dictionary = make(dim=2, codes=2, reseed=False, momentum=1.0)
    dictionary.codes = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    for _ in range(20):
        dictionary.update(torch.tensor([[1.0, 0.0]]), torch.tensor([True]), total=20)
    assert dictionary.codes.tolist() == [[1, 0], [-1, 0]]
    assert dictionary.usage[1] < 0.02


def test_reseeding_touches_only_codes_below_the_threshold():
    dictionary = make(reseed=True, reseed_after=1.0, reseed_below=0.02, momentum=1.0)
    vectors = unit(50)
    dictionary.usage = torch.tensor([1.0, 0.001, 1.0, 0.001])
    before = dictionary.codes.clone()
    active = dictionary.assign(vectors) % 2 == 0
    dictionary.update(vectors, active, total=10_000)
    torch.testing.assert_close(dictionary.codes[[0, 2]], before[[0, 2]])
    found = [bool((vectors[active] == code).all(dim=1).any()) for code in dictionary.codes]
    assert found == [False, True, False, True]
    assert not torch.equal(dictionary.codes[1], dictionary.codes[3])
    assert dictionary.usage[[1, 3]].tolist() == [1, 1]


@pytest.mark.parametrize("key", ["reseed_after", "reseed_below"])
@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, 20])
def test_shares_out_of_range(key, value):
    with pytest.raises(ConfigError, match=f"method.dictionary.{key}"):
        DictionarySettings(**{key: value})


def test_the_first_batch_gives_distinct_active_slots_as_codes():
    vectors, active = unit(30), torch.arange(30) % 3 == 0
    dictionary = make(initial="slots")
    dictionary.begin(vectors, active)
    rows = [int((vectors == code).all(dim=1).nonzero()) for code in dictionary.codes]
    assert len(set(rows)) == 4
    assert all(row % 3 == 0 for row in rows)
    kept = dictionary.codes.clone()
    dictionary.update(vectors, torch.zeros(30, dtype=torch.bool), total=1)
    dictionary.begin(unit(30, seed=1), active)
    assert torch.equal(dictionary.codes, kept)


def test_with_fewer_vectors_than_codes_the_others_stay():
    dictionary = make(initial="slots")
    before = dictionary.codes.clone()
    dictionary.begin(unit(3), torch.tensor([True, False, True]))
    changed = (dictionary.codes != before).any(dim=1)
    assert changed.sum() == 2


def test_state_is_taken_back():
    first, second = make(), make(seed=1)
    first.update(unit(9), all_active(unit(9)), total=1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.usage, second.usage)
    assert second.updates == 1


def test_perplexity():
    assert perplexity(torch.ones(8)).item() == pytest.approx(8)
    assert perplexity(torch.tensor([3.0, 0, 0])).item() == pytest.approx(1)
    assert perplexity(torch.tensor([1.0, 3.0])).item() == pytest.approx(
        math.exp(0.25 * math.log(4) + 0.75 * math.log(4 / 3))
    )


def test_the_centre_is_a_moving_average_of_the_mean_logits():
    views = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    mean = torch.cat(views).mean(dim=(0, 2, 3))
    centre = torch.tensor([0.5, -0.5])
    torch.testing.assert_close(update_centre(centre, views, momentum=0.9, runtime=CPU), 0.9 * centre + 0.1 * mean)
