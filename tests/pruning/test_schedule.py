import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import OneCycleLR

from robustlab.core.errors import ConfigError
from robustlab.pruning.strength_schedule import KINDS, Schedule, span_in_updates


@given(st.floats(1e-6, 10.0), st.integers(10, 10_000))
def test_one_cycle_rises_to_the_peak_and_falls_to_a_remainder(peak, span):
    strength = Schedule("one_cycle", peak, span)
    top = math.floor(0.3 * span)
    assert strength(0) == pytest.approx(peak / 25)
    assert strength(top) == pytest.approx(peak)
    assert strength(span) == strength(10 * span) == pytest.approx(peak / 250_000)
    rise = [strength(t) for t in range(0, top + 1, max(1, span // 100))]
    fall = [strength(t) for t in range(top, span + 1, max(1, span // 100))]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)


def test_one_cycle_between_its_ends():
    strength = Schedule("one_cycle", 1.0, 100)
    assert strength(15) == pytest.approx((1 / 25 + 1) / 2)  # halfway up
    assert strength(65) == pytest.approx((1 + 1 / 250_000) / 2)  # halfway down


def test_one_cycle_has_the_ends_of_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = OneCycleLR(optimizer, max_lr=0.1, total_steps=50, cycle_momentum=False)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < 50:
            theirs.step()
    strength = Schedule("one_cycle", 0.1, 50)
    assert (rates[0], rates[-1], max(rates)) == pytest.approx((strength(0), strength(50), strength(15)))


def test_the_other_kinds():
    cosine, warmup, step = (Schedule(kind, 2.0, 100) for kind in ("cosine", "warmup", "step"))
    assert [cosine(t) for t in (0, 50, 100, 300)] == pytest.approx([2.0, 1.0, 0.0, 0.0])
    assert [warmup(t) for t in (0, 50, 100, 300)] == pytest.approx([1e-6, 1.0000005, 2.0, 2.0])
    assert [step(t) for t in (0, 24, 25, 50, 99, 300)] == pytest.approx([2.0, 2.0, 0.2, 0.02, 0.002, 0.002])
    assert {Schedule("constant", 2.0, 100)(t) for t in (0, 99, 100, 5000)} == {2.0}


@pytest.mark.parametrize("kind", KINDS)
def test_hard_off_and_no_peak_are_exactly_zero(kind):
    strength = Schedule(kind, 2.0, 100, hard_off=True)
    assert strength(99) > 0
    assert strength(100) == strength(5000) == 0
    assert {Schedule(kind, 0.0, 100)(t) for t in (0, 30, 100)} == {0.0}


def test_spans_are_shares_or_updates():
    assert [span_in_updates(span, 1000, key="reg.span") for span in (0.3, 0.29, 1, 2, 85000)] == [
        300,
        290,
        1000,
        2,
        85000,
    ]
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(ConfigError, match=r"method\.reg\.span is"):
            span_in_updates(wrong, 1000, key="reg.span")
