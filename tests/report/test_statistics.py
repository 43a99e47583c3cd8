"""Estimates against the standard library."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.report.statistics import Estimate, estimate


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_mean_and_sample_deviation(values):
    got = estimate(values)
    assert got.count == len(values)
    assert got.mean == pytest.approx(statistics.fmean(values), rel=1e-12, abs=1e-9)
    assert got.std == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-9)
    assert min(values) <= got.mean <= max(values)


def test_exact_values():
    assert estimate([0.5]) == Estimate(0.5, None, 1)
    assert estimate([0.1, 0.1, 0.1]) == Estimate(0.1, 0.0, 3)
    assert estimate([1.0, 2.0, 3.0, 4.0]).std == pytest.approx(math.sqrt(5 / 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_run_is_not_averaged_away(bad):
    got = estimate([0.9, bad])
    assert math.isnan(got.mean)
    assert got.count == 2
