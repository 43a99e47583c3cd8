import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.engine.method import Position
from robustlab.methods.erm import ERM
from robustlab.methods.spectral_decoupling import SpectralDecoupling
from tests.methods.harness import assert_equal, make_context, make_data, run, snapshot


def built(method):
    method.build(make_context(make_data(train=100, test=10), epochs=2, batch_size=20))
    return method


def test_the_penalty_is_the_mean_of_all_squared_logits():
    method = built(SpectralDecoupling(coefficient=0.5))
    batch = next(method.batches(method.stages()[0], 0, 0))
    with torch.no_grad():
        logits = method.learners["network"](batch.images)
    done = method.loss(batch, Position("train", 0, 0, 0))
    assert done["penalty"].item() == pytest.approx((logits**2).sum().item() / (20 * 5), rel=1e-5)
    torch.testing.assert_close(done["loss"], done["loss_labelled"] + 0.5 * done["penalty"])


@pytest.mark.parametrize("options", [{"coefficient": 0.0}, {"coefficient": 9.0, "delay": 10}])
def test_without_penalty_it_is_cross_entropy(options):
    ends = []
    for method in (SpectralDecoupling(**options), ERM()):
        run(built(method))
        ends.append(snapshot(method)["learners"])
    assert_equal(*ends)


def test_the_delay_counts_steps_of_the_run():
    method = built(SpectralDecoupling(coefficient=9.0, delay=7))
    batch = next(method.batches(method.stages()[0], 0, 0))
    before, after = (method.loss(batch, Position("train", 1, step - 5, step)) for step in (6, 7))
    assert before["loss"] == before["loss_labelled"]
    assert after["loss"] > after["loss_labelled"]


@pytest.mark.parametrize("options", [{"coefficient": -0.1}, {"delay": -1}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=f"method.{next(iter(options))}"):
        SpectralDecoupling(**options)
