"""Exact values and properties of equations (8) and (9) and of the schedules."""

import math

import pytest
import torch
import torch.nn.functional as F

from robustlab.methods.label_noise.crosssplit import objective as losses
from robustlab.methods.label_noise.crosssplit.timeline import gamma_at, ramp


def test_squared_error_of_a_uniform_prediction():
    one_hot = F.one_hot(torch.tensor([3, 1]), 10).float()
    assert losses.squared_error(torch.zeros(2, 10), one_hot).item() == pytest.approx(0.09, abs=1e-7)


@pytest.mark.parametrize(("mean", "value"), [([0.25] * 4, 0.0), ([0.7, 0.1, 0.1, 0.1], 0.429813)])
def test_prior(mean, value):
    logits = torch.tensor(mean).log()
    rows = torch.stack([logits + 5, logits - 2])  # softmax does not see the shift
    assert losses.uniform_prior(rows).item() == pytest.approx(value, abs=1e-6)


def test_prior_is_of_the_mean_prediction_and_finite():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert losses.uniform_prior(logits).item() == pytest.approx(0, abs=1e-6)  # each row is far from uniform
    assert losses.uniform_prior(torch.tensor([[500.0, 0.0]])).isfinite()


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0])
def test_contrastive_loss_of_identical_embeddings(temperature):
    same = torch.ones(4, 8)
    assert losses.nt_xent(same, same, temperature=temperature).item() == pytest.approx(math.log(7), abs=1e-5)


def test_contrastive_loss_of_orthonormal_pairs():
    pairs = torch.eye(4)
    value = losses.nt_xent(3 * pairs, 0.1 * pairs, temperature=0.5)  # lengths do not matter
    assert value.item() == pytest.approx(-2 + math.log(math.e**2 + 6), abs=1e-6)
    assert value.item() == pytest.approx(0.594438, abs=1e-6)


def test_contrastive_loss_is_symmetric_and_equals_a_loop():
    first, second = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    value = losses.nt_xent(first, second, temperature=0.2)
    torch.testing.assert_close(value, losses.nt_xent(second, first, temperature=0.2))
    rows = F.normalize(torch.cat([first, second]), dim=1)
    total = 0.0
    for i in range(10):
        similar = [float(rows[i] @ rows[j]) / 0.2 for j in range(10) if j != i]
        positive = float(rows[i] @ rows[(i + 5) % 10]) / 0.2
        total += math.log(sum(map(math.exp, similar))) - positive
    assert value.item() == pytest.approx(total / 10, abs=1e-5)


def test_soft_cross_entropy():
    logits, wanted = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
    wanted = wanted.softmax(dim=1)
    by_hand = -(wanted * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(losses.soft_cross_entropy(logits, wanted), by_hand)


def test_warmup_loss_penalises_confidence():
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    plain = losses.warmup_loss(logits, labels, entropy_weight=0.0)
    assert plain == F.cross_entropy(logits, labels)
    p = logits.softmax(dim=1)
    entropy = -(p * p.log()).sum(dim=1).mean()
    torch.testing.assert_close(losses.warmup_loss(logits, labels, entropy_weight=0.1), plain - 0.1 * entropy)
    assert losses.negative_entropy(torch.tensor([[1000.0, 0.0]])) == 0  # and not 0 * -inf


@pytest.mark.parametrize(
    ("warmup", "epoch", "value"),
    [
        *[(10, 10, 0.6), (10, 29, 0.6), (10, 30, 0.8), (10, 39, 0.8), (10, 40, 1.0)],
        *[(30, 30, 0.6), (30, 49, 0.6), (30, 50, 0.8), (30, 59, 0.8), (30, 60, 1.0), (30, 299, 1.0)],
    ],
)
def test_gamma(warmup, epoch, value):
    assert gamma_at(epoch, warmup=warmup, values=[0.6, 0.8, 1.0], until=[2, 3], delta=10) == value


def test_constant_gamma():
    assert gamma_at(17, warmup=10, values=[0.0], until=[], delta=10) == 0.0


@pytest.mark.parametrize(
    ("time", "value"), [(10, 0.0), (10.5, 0.9375), (11, 1.875), (14, 7.5), (18, 15.0), (26, 30.0), (200, 30.0)]
)
def test_lambda_u(time, value):
    assert 30 * ramp(time, warmup=10, epochs=16) == pytest.approx(value)
    assert ramp(10, warmup=10, epochs=0) == 1.0
