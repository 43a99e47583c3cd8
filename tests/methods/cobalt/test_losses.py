"""Distillation, slot contrast and vector quantisation."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from robustlab.methods.groups.cobalt import discovery_losses as losses
from tests.methods.cobalt.toy import CPU


def drawn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def distillation(student, teacher, centre=None, student_temperature=0.1, teacher_temperature=0.07):
    return losses.distillation(
        student,
        teacher,
        torch.zeros(student.shape[1]) if centre is None else centre,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        runtime=CPU,
    )


def entropy(logits):
    return torch.special.entr(logits.softmax(dim=1)).sum(dim=1).mean()


def contrast(queries, keys, valid=None, active=None, temperature=0.2):
    """keys: float [B, N, d]; all slots valid and active unless said otherwise."""
    everywhere = torch.ones(keys.shape[:2], dtype=torch.bool)
    active = everywhere if active is None else active
    gathered = losses.gather_keys(keys, active, total=len(keys), runtime=CPU)
    return losses.contrast(
        queries, gathered, everywhere if valid is None else valid, temperature=temperature, runtime=CPU
    )


def quantisation(vectors, codes, assigned, valid=None, temperature=0.1):
    valid = torch.ones(assigned.shape, dtype=torch.bool) if valid is None else valid
    return losses.quantisation(vectors, codes, assigned, valid, temperature=temperature, runtime=CPU)


def test_distillation_of_a_map_against_itself_is_its_entropy():
    logits = drawn(2, 4, 3, 5)
    found = distillation(logits, logits, student_temperature=0.3, teacher_temperature=0.3)
    torch.testing.assert_close(found, entropy(logits / 0.3))


@given(st.integers(0, 999))
def test_distillation_is_never_below_the_teachers_entropy(seed):
    student, teacher, centre = drawn(2, 4, 3, 3, seed=seed), drawn(2, 4, 3, 3, seed=seed + 1), drawn(4, seed=seed + 2)
    target = (teacher - centre[:, None, None]) / 0.07
    assert distillation(student, teacher, centre) >= entropy(target) - 1e-5


def test_a_centre_takes_the_advantage_from_a_slot_that_wins_everywhere():
    teacher = drawn(2, 3, 4, 4) * 0.01
    teacher[:, 0] += 1
    flat = torch.zeros(2, 3, 4, 4)
    assert distillation(flat, teacher, torch.tensor([1.0, 0, 0])) == pytest.approx(math.log(3), abs=1e-6)
    favoured = flat.clone()
    favoured[:, 0] += 0.5
    assert distillation(favoured, teacher) < distillation(flat, teacher)
    assert distillation(favoured, teacher, torch.tensor([1.0, 0, 0])) > distillation(flat, teacher)


def test_contrast_of_matched_orthogonal_slots_is_at_its_minimum():
    keys = 3 * torch.eye(8).view(2, 4, 8)
    found = contrast(keys, keys)
    minimum = -2 * 0.2 * math.log(math.exp(5) / (math.exp(5) + 7))
    assert found.item() == pytest.approx(minimum, abs=1e-6)
    assert contrast(drawn(2, 4, 8), keys) > found


@given(st.integers(0, 999))
def test_contrast_does_not_depend_on_the_order_of_images(seed):
    queries, keys = drawn(5, 3, 4, seed=seed), drawn(5, 3, 4, seed=seed + 1)
    active = torch.rand(5, 3, generator=torch.Generator().manual_seed(seed)) < 0.7
    valid = active & (torch.rand(5, 3, generator=torch.Generator().manual_seed(seed + 1)) < 0.7)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    found = contrast(queries, keys, valid, active)
    torch.testing.assert_close(contrast(queries[order], keys[order], valid[order], active[order]), found)


def by_hand(queries, keys, valid, active, temperature=0.2):
    """One query at a time, over a list of active keys: the label is the place in that list."""
    places = [(image, slot) for image in range(len(keys)) for slot in range(keys.shape[1]) if active[image, slot]]
    rows = []
    for image in range(len(keys)):
        for slot in range(keys.shape[1]):
            if valid[image, slot]:
                logits = torch.stack([F.cosine_similarity(queries[image, slot], keys[p], dim=0) for p in places])
                label = torch.tensor(places.index((image, slot)))
                rows.append(F.cross_entropy(logits / temperature, label) * 2 * temperature)
    return torch.stack(rows).mean()


def test_contrast_finds_its_keys_among_gaps():
    queries, keys = drawn(4, 3, 5), drawn(4, 3, 5, seed=1)
    active = torch.tensor([[0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]]).bool()
    valid = torch.tensor([[0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]).bool()
    torch.testing.assert_close(contrast(queries, keys, valid, active), by_hand(queries, keys, valid, active))


def test_slots_that_are_not_active_take_no_part_in_the_contrast():
    queries, keys = drawn(3, 2, 4).requires_grad_(), drawn(3, 2, 4, seed=1)
    active = torch.tensor([[1, 1], [0, 1], [1, 0]]).bool()
    found = contrast(queries, keys, active, active)
    found.backward()
    assert queries.grad is not None
    assert bool((queries.grad[~active] == 0).all())
    assert bool((queries.grad[active] != 0).any(dim=1).all())
    other = torch.where(active[..., None], keys, drawn(3, 2, 4, seed=2))
    torch.testing.assert_close(contrast(queries, other, active, active), found)


@pytest.mark.parametrize("count", [0, 1])
def test_contrast_of_fewer_than_two_queries_is_zero_with_a_gradient(count):
    queries, keys = drawn(2, 2, 4).requires_grad_(), drawn(2, 2, 4, seed=1)
    valid = torch.zeros(2, 2, dtype=torch.bool)
    valid.view(-1)[:count] = True
    found = contrast(queries, keys, valid, valid)
    found.backward()
    assert found.item() == 0
    assert queries.grad is not None
    assert bool((queries.grad == 0).all())


def test_quantisation_is_the_cross_entropy_of_distances():
    vectors, codes = drawn(3, 2, 4), F.normalize(drawn(5, 4, seed=1), dim=1)
    assigned = torch.tensor([[0, 1], [4, 2], [3, 3]])
    valid = torch.tensor([[1, 1], [0, 1], [1, 0]]).bool()
    distances = (F.normalize(vectors, dim=2)[:, :, None] - codes).square().sum(dim=3)
    probabilities = (-distances / 0.1).softmax(dim=2)
    torch.testing.assert_close(probabilities.sum(dim=2), torch.ones(3, 2))
    assert torch.equal(probabilities.argmax(dim=2), distances.argmin(dim=2))
    rows = -probabilities.gather(2, assigned[..., None])[..., 0].log()
    torch.testing.assert_close(quantisation(vectors, codes, assigned, valid), rows[valid].mean())


@given(st.integers(0, 999), st.floats(0.01, 100))
def test_quantisation_does_not_depend_on_the_length_of_slots(seed, scale):
    vectors, codes = drawn(3, 2, 4, seed=seed), F.normalize(drawn(5, 4, seed=seed + 1), dim=1)
    assigned = torch.randint(0, 5, (3, 2), generator=torch.Generator().manual_seed(seed))
    expected = quantisation(vectors, codes, assigned)
    torch.testing.assert_close(quantisation(vectors * scale, codes, assigned), expected, atol=1e-5, rtol=1e-4)


def test_quantisation_without_a_valid_slot_is_zero_with_a_gradient():
    vectors = drawn(2, 2, 4).requires_grad_()
    found = quantisation(
        vectors, F.normalize(drawn(3, 4), dim=1), torch.zeros(2, 2).long(), torch.zeros(2, 2, dtype=torch.bool)
    )
    found.backward()
    assert found.item() == 0
    assert vectors.grad is not None
    assert bool((vectors.grad == 0).all())
