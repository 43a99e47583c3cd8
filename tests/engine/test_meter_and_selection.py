import pytest
import torch

from robustlab.core.errors import NumericalError
from robustlab.core.runtime import Runtime
from robustlab.engine.meter import Meter
from robustlab.engine.selection import Selection


@pytest.fixture
def runtime():
    return Runtime(torch.device("cpu"))


def test_means_of_intervals_and_epochs_with_scalars_that_come_and_go(runtime):
    meter = Meter(runtime)
    meter.add({"loss": torch.tensor(1.0)})
    meter.add({"loss": torch.tensor(3.0), "extra": torch.tensor(5.0)})
    assert meter.interval() == {"loss": 2.0, "extra": 5.0}
    meter.add({"loss": torch.tensor(5.0)})
    assert meter.interval() == {"loss": 5.0}
    assert meter.epoch() == {"loss": 3.0, "extra": 5.0}
    assert meter.epoch() == {}


def test_a_resumed_meter_gives_the_rows_of_the_uninterrupted_one(runtime):
    whole, first = Meter(runtime), Meter(runtime)
    for value in (1.0, 2.0):
        whole.add({"loss": torch.tensor(value)})
        first.add({"loss": torch.tensor(value)})
    second = Meter(runtime)
    second.load_state_dict(first.state_dict())
    for meter in (whole, second):
        meter.add({"loss": torch.tensor(6.0)})
    assert whole.interval() == second.interval() == {"loss": 3.0}
    assert whole.epoch() == second.epoch() == {"loss": 3.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_reported_with_its_step(runtime, bad):
    meter = Meter(runtime)
    for value in (1.0, 1.0, 1.0):
        meter.add({"loss": torch.tensor(value)})
    meter.interval()
    for value in (1.0, bad, 1.0):
        meter.add({"loss": torch.tensor(value)})
    with pytest.raises(NumericalError, match="global step 4"):
        meter.read()


def test_selection_rules():
    selection = Selection(["last", "mean_last10", "best_test", "best_noisy_val"])
    test = [0.1, 0.9, float("nan"), 0.5, 0.9]
    val = [0.3, 0.2, 0.4, 0.1, 0.4]
    for epoch, (a, b) in enumerate(zip(test, val, strict=True)):
        selection.update(epoch, {"test/accuracy": a, "val/accuracy": b}, lambda e=epoch: {"epoch": e})
    results = selection.results()
    assert results["last"] == {"epoch": 4, "test/accuracy": 0.9, "val/accuracy": 0.4}
    assert results["best_test"]["epoch"] == 1  # the first of equals; NaN is never the best
    assert results["best_noisy_val"]["epoch"] == 2
    assert selection.snapshots == {"best_test": {"epoch": 1}, "best_noisy_val": {"epoch": 2}}
    again = Selection(selection.rules)
    again.load_state_dict(selection.state_dict())
    assert str(again.results()) == str(results)


def test_mean_last10_is_over_ten_evaluations():
    selection = Selection(["mean_last10"])
    for epoch in range(15):
        selection.update(epoch, {"test/accuracy": float(epoch)}, dict)
    assert selection.results()["mean_last10"]["test/accuracy"] == pytest.approx(9.5)


def test_without_validation_split_there_is_no_best_noisy_val():
    selection = Selection(["best_noisy_val"])
    selection.update(0, {"test/accuracy": 0.5}, dict)
    assert selection.results() == {}
    with pytest.raises(ValueError, match="unknown selection rules"):
        Selection(["best"])
