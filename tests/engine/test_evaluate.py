"""Results of evaluation, checked against planted predictions."""

import pytest
import torch

from robustlab.data.run_data import Data
from robustlab.engine.evaluate import evaluate_splits
from robustlab.metrics.intervals import wilson_interval
from tests.engine.planted import Planted, reader
from tests.methods.harness import RUNTIME


def measure(*, concepts=None, by_class: bool = False, min_count: int | None = None, **options) -> dict[str, float]:
    data = Data(Planted(**options), seed=0)
    method = reader(data, RUNTIME, concepts)
    if min_count is not None:
        method.surrogate_min_count = min_count
    return evaluate_splits(method, data, batch_size=3, runtime=RUNTIME, by_class=by_class)


def test_group_metrics_of_the_test_split_have_their_hand_computed_values():
    measured = measure()
    test = {name.removeprefix("test/"): value for name, value in measured.items() if name.startswith("test/")}
    loss = test.pop("loss")
    assert loss > 0
    low, high = wilson_interval(0.5, 4)
    assert test == {
        "accuracy": pytest.approx(14 / 20),
        "adjusted_avg": pytest.approx((6 * 0.9 + 1 * 0.5 + 2 * 0.5) / 9),  # the training group that is not there: out
        "balanced_group_avg": pytest.approx((0.9 + 0.5 + 0.5) / 3),
        "worst_group": 0.5,  # the first of two
        "worst_group_low": pytest.approx(low),
        "worst_group_high": pytest.approx(high),
        "group/landbird-land": pytest.approx(0.9),
        "group/landbird-water": 0.5,
        "group/waterbird-water": 0.5,
        "worst_class": 0.5,
        "balanced_accuracy": pytest.approx((11 / 14 + 0.5) / 2),
        "class/landbird": pytest.approx(11 / 14),
        "class/waterbird": 0.5,
    }
    assert measured["val/worst_group"] == 0.0
    assert measured["val/group/waterbird-land"] == 0.0


def test_without_attributes_there_is_no_worst_group():
    assert set(measure(attributes=False)) == {"val/accuracy", "val/loss", "test/accuracy", "test/loss"}
    extra = {f"{split}/{name}" for split in ("val", "test") for name in ("worst_class", "balanced_accuracy")}
    assert set(measure(attributes=False, by_class=True)) - set(measure(attributes=False)) == extra


def test_the_worst_inferred_group_is_measured_where_there_are_concepts():
    concepts = {"val": torch.tensor([[0, 1], [0, -1], [1, -1], [1, -1], [1, -1]], dtype=torch.int16)}
    measured = measure(attributes=False, concepts=concepts, min_count=1)
    assert measured["val/inferred_worst"] == 0.5  # concept 1, label 1: one of two right
    assert measured["val/worst_class"] == 0.5
    assert "test/inferred_worst" not in measured
    assert "test/worst_class" not in measured
    assert "val/inferred_worst" not in measure(concepts=concepts, min_count=3)


def test_concepts_of_another_number_of_samples_are_a_bug():
    with pytest.raises(AssertionError, match="4 rows of concepts for 5 val samples"):
        measure(concepts={"val": torch.zeros(4, 1, dtype=torch.int16)})


def test_metrics_that_a_data_set_derives_are_measured_too():
    assert measure(derived=True)["test/gap"] == pytest.approx(0.4)
