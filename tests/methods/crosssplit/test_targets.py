"""Exact values and properties of equations (1) to (6)."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from robustlab.methods.label_noise.crosssplit import targets
from robustlab.methods.label_noise.crosssplit.targets import ClassExtrema

JSD = {
    0.0: 0.693147,
    0.01: 0.665096,
    0.1: 0.525597,
    0.25: 0.380396,
    0.5: 0.215762,
    0.75: 0.095603,
    0.9: 0.035974,
    0.99: 0.003478,
    1.0: 0.0,
}


def probabilities(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_case(seed: int, rows: int = 40, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p = torch.softmax(4 * torch.randn(rows, classes, generator=generator), dim=1)
    return p, torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize(("q", "value"), JSD.items())
def test_divergence_has_the_exact_values(q, value):
    p = probabilities([q, 1 - q])
    assert targets.jensen_shannon(p, torch.tensor([0])).item() == pytest.approx(value, abs=6e-7)
    assert targets.jensen_shannon(p.float(), torch.tensor([0])).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("classes", "value"), [(2, 0.215762), (10, 0.525597), (50, 0.643928), (100, 0.665096), (200, 0.677395)]
)
def test_divergence_from_the_uniform_prediction(classes, value):
    p = torch.full((1, classes), 1 / classes, dtype=torch.float64)
    assert targets.jensen_shannon(p, torch.tensor([0])).item() == pytest.approx(value, abs=6e-7)


def test_divergence_equals_the_two_divergences_of_its_definition():
    p, labels = random_case(0, rows=500)
    one_hot = torch.nn.functional.one_hot(labels, p.shape[1]).double()
    middle = (one_hot + p) / 2
    both = [(torch.xlogy(a, a) - torch.xlogy(a, middle)).sum(dim=1) for a in (one_hot, p.double())]
    torch.testing.assert_close(targets.jensen_shannon(p.double(), labels), (both[0] + both[1]) / 2, rtol=0, atol=1e-6)


def test_divergence_decreases_and_does_not_see_how_the_rest_is_spread():
    q = torch.linspace(0, 1, 1001, dtype=torch.float64)
    values = targets.jensen_shannon(torch.stack([q, 1 - q], dim=1), torch.zeros(1001, dtype=torch.int64))
    assert (values.diff() < 0).all()
    spread = probabilities([0.3, 0.7, 0.0], [0.3, 0.35, 0.35])
    first, second = targets.jensen_shannon(spread, torch.tensor([0, 0]))
    assert first == second


@pytest.mark.parametrize(
    ("gamma", "wanted"),
    [(0.6, [0.2, 0.5, 0.8]), (0.8, [0.1, 0.5, 0.9]), (1.0, [0.0, 0.5, 1.0]), (0.0, [0.5, 0.5, 0.5])],
)
def test_beta(gamma, wanted):
    beta = targets.mixing_weight(torch.tensor([0.0, 0.5, 1.0]), gamma)
    torch.testing.assert_close(beta, torch.tensor(wanted))


def test_sharpening():
    v = torch.tensor([[0.5, 0.3, 0.2]])
    wanted = torch.tensor([[0.657895, 0.236842, 0.105263]])
    torch.testing.assert_close(targets.sharpen(v, 0.5), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(targets.sharpen(v, 1.0), v)
    several, _ = random_case(5)
    for temperature in (0.05, 0.5, 2.0):
        assert torch.equal(targets.sharpen(several, temperature).argmax(dim=1), several.argmax(dim=1))
    tiny = targets.sharpen(torch.full((1, 1000), 1e-3), 0.05)  # 1e-60 in the plain formula: 0 / 0
    torch.testing.assert_close(tiny, torch.full((1, 1000), 1e-3))


def test_soft_label_by_hand():
    p, y = torch.tensor([[0.2, 0.8]]), torch.tensor([0])
    beta = targets.mixing_weight(torch.tensor([1.0]), 0.6)
    soft = targets.soft_label(p, y, beta)
    torch.testing.assert_close(soft, torch.tensor([[0.36, 0.64]]))
    torch.testing.assert_close(targets.sharpen(soft, 0.5), torch.tensor([[0.240356, 0.759644]]), rtol=0, atol=1e-6)


def test_extrema_equal_a_loop_over_classes_in_any_order_and_batching():
    p, labels = random_case(1, rows=300, classes=7)
    labels[labels == 5] = 4  # an empty class
    divergence = targets.jensen_shannon(p, labels)
    whole = ClassExtrema.empty(7).update(divergence, labels)
    for c in range(7):
        members = divergence[labels == c]
        if c == 5:
            assert (whole.low[c], whole.high[c]) == (math.inf, -math.inf)
        else:
            assert (whole.low[c], whole.high[c]) == (members.min(), members.max())
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    parts = ClassExtrema.empty(7)
    for rows in order.split(17):
        parts = parts.update(divergence[rows], labels[rows])
    assert torch.equal(parts.low, whole.low)
    assert torch.equal(parts.high, whole.high)


def test_a_class_without_range_is_undecided():
    extrema = ClassExtrema.empty(3).update(torch.tensor([0.2, 0.1, 0.5]), torch.tensor([0, 1, 1]))
    value = targets.normalise(torch.tensor([0.2, 0.4, 0.3, 0.3]), torch.tensor([0, 0, 2, 1]), extrema)
    torch.testing.assert_close(value, torch.tensor([0.5, 0.5, 0.5, 0.5]))  # single sample, the same, absent, halfway


def test_normalised_divergence_is_clipped():
    extrema = ClassExtrema(torch.tensor([0.2]), torch.tensor([0.4]))
    value = targets.normalise(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.6]), torch.zeros(5, dtype=torch.int64), extrema)
    torch.testing.assert_close(value, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))


@given(
    seed=st.integers(0, 10**6),
    gamma=st.floats(0, 1),
    temperature=st.floats(0.05, 2),
    views_apart=st.booleans(),
    hard=st.booleans(),
)
def test_corrected_targets_are_distributions(seed, gamma, temperature, views_apart, hard):
    p, labels = random_case(seed)
    other, _ = random_case(seed + 1) if views_apart else (p, labels)
    extrema = ClassExtrema.empty(6).update(targets.jensen_shannon(other, labels), labels)
    done = targets.correct(p, labels, extrema, gamma=gamma, temperature=temperature, hard=hard)
    assert done.targets.isfinite().all()
    assert (done.targets >= 0).all()
    torch.testing.assert_close(done.targets.sum(dim=1), torch.ones(len(p)), rtol=0, atol=1e-5)
    assert ((done.divergence >= 0) & (done.divergence <= 1)).all()
    assert ((done.beta >= 0.5 - gamma / 2 - 1e-6) & (done.beta <= 0.5 + gamma / 2 + 1e-6)).all()


def test_correction_goes_through_the_equations_in_order():
    p, labels = random_case(3)
    p.requires_grad_()
    extrema = ClassExtrema.empty(6).update(targets.jensen_shannon(p.detach(), labels), labels)
    done = targets.correct(p, labels, extrema, gamma=0.6, temperature=0.5)
    assert not done.targets.requires_grad
    for i, label in enumerate(labels.tolist()):
        q = p[i, label].item()
        jsd = math.log(2) + 0.5 * (q * math.log(q) - (1 + q) * math.log(1 + q))
        low, high = extrema.low[label].item(), extrema.high[label].item()
        beta = 0.6 * ((jsd - low) / (high - low) - 0.5) + 0.5
        soft = [beta * value + (1 - beta) * (k == label) for k, value in enumerate(p[i].tolist())]
        total = sum(value**2 for value in soft)
        assert done.targets[i].tolist() == pytest.approx([value**2 / total for value in soft], abs=1e-4)


def test_ablations_of_the_correction():
    p, labels = random_case(4)
    plain = targets.correct(p, labels, None, gamma=1.0, temperature=0.5)
    torch.testing.assert_close(plain.divergence, targets.jensen_shannon(p, labels) / math.log(2))
    hard = targets.correct(p, labels, None, gamma=1.0, temperature=0.5, hard=True)
    assert torch.equal(hard.targets.argmax(dim=1), plain.targets.argmax(dim=1))
    assert set(hard.targets.unique().tolist()) == {0.0, 1.0}


def test_guess_is_the_sharpened_mean():
    first, second = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    mean = (first.softmax(dim=1) + second.softmax(dim=1)) / 2
    torch.testing.assert_close(targets.guess(first, second, temperature=0.5), mean**2 / (mean**2).sum(1, keepdim=True))
