from copy import deepcopy

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.engine.inference import eval_logits
from robustlab.methods.erm import ERM
from robustlab.methods.groups.jtt import JTT, minority_found
from tests.data.grouped_source import Grouped, ThreeWay, biased
from tests.methods.harness import (
    RUNTIME,
    Options,
    assert_equal,
    make_context,
    make_data,
    positions,
    restore,
    run,
    snapshot,
)

SECOND = 7
"""Steps of the first stage: 100 samples in batches of 16."""


def built(method=None, **options):
    method = method or JTT(identification={"epochs": 1}, up_weight=3)
    data = make_data(train=100, test=10, sigma=3.0)
    method.build(make_context(data, epochs=2, batch_size=16, options=Options(cosine_to=1e-3, **options)))
    return method


def test_errors_are_what_the_first_network_gets_wrong_in_eval_mode():
    method = built()
    assert method.stages()[0].evaluated is False
    run(method, stop=SECOND)
    data = method.context.data
    batch = next(data.evaluation("train", 100).epoch(0))
    wrong = eval_logits(method.learners["identification"], batch.images, runtime=RUNTIME).argmax(dim=1) != batch.targets
    assert 0 < int(wrong.sum()) < 100
    assert method.errors is not None
    assert torch.equal(method.errors, batch.index[wrong])
    ends = run(method, start=SECOND)
    assert len(ends) == 2


def during(**options):
    return built(JTT(identification={"epochs": 2, "errors": "during"}, up_weight=3), **options)


def test_errors_during_the_last_epoch_are_those_of_the_predictions_that_were_trained_on():
    method = during()
    expected = set()

    def watch(batch, position):
        if position.stage == "identify" and position.epoch == 1:
            network = deepcopy(method.learners["identification"].network).train()
            with torch.no_grad():
                wrong = network(batch.images).argmax(dim=1) != batch.targets
            expected.update(batch.index[wrong].tolist())

    ends = run(method, stop=2 * SECOND, before=watch)
    assert method.errors is not None
    assert method.errors.tolist() == sorted(expected)
    assert ends[-1]["jtt/errors"] == len(expected) > 0
    data = method.context.data
    batch = next(data.evaluation("train", 100).epoch(0))
    after = eval_logits(method.learners["identification"], batch.images, runtime=RUNTIME).argmax(dim=1)
    assert set(batch.index[after != batch.targets].tolist()) != expected  # else nothing tells the two apart


@pytest.mark.parametrize("stop", [SECOND - 1, SECOND + 3, 2 * SECOND - 1, 2 * SECOND + 3])
def test_errors_during_an_epoch_survive_a_stop_within_it(stop):
    whole, first, second = during(), during(), during()
    run(whole)
    run(first, stop=stop)
    restore(second, snapshot(first))
    run(second, start=stop)
    assert_equal(snapshot(second), snapshot(whole))


def test_an_error_comes_up_weight_times_more():
    method = built()
    ends = run(method, stop=SECOND)
    assert method.errors is not None
    assert ends[0]["jtt/errors"] == len(method.errors)
    assert ends[0]["jtt/error_share"] == len(method.errors) / 100
    stage = method.stages()[1]
    batches = list(method.batches(stage, 0, 0))
    counts = torch.bincount(torch.cat([batch.index for batch in batches]), minlength=100)
    assert torch.equal(counts, 1 + 3 * torch.isin(torch.arange(100), method.errors).long())
    assert len(batches) == method.steps_per_epoch(stage, 0) == -(-(100 + 3 * len(method.errors)) // 16)


def test_the_second_network_starts_anew_with_a_schedule_of_its_own():
    method, plain = built(), built(ERM())
    first = snapshot(plain)["learners"]["network"]
    run(method, stop=SECOND)
    second = snapshot(method)["learners"]["network"]
    assert_equal(second["network"], first["network"])
    assert second["scheduler"] == first["scheduler"]
    assert second["epochs"] == 0
    run(method, start=SECOND)
    assert method.learners["network"].epochs == 2
    assert method.learners["identification"].epochs == 1


def test_it_goes_on_in_the_second_stage_as_if_nothing_had_happened():
    whole = built()
    run(whole)
    stop = SECOND + 3
    first, second = built(), built()
    run(first, stop=stop)
    assert len(positions(first)) > len(positions(second))  # a new run does not know the errors
    restore(second, snapshot(first))
    assert len(positions(first)) == len(positions(second))
    run(second, start=stop)
    assert_equal(snapshot(second), snapshot(whole))


def test_a_warning_where_there_are_no_errors(capsys):
    method = JTT(identification={"epochs": 1})  # type: ignore[arg-type]
    method.build(make_context(make_data(train=100, test=10, noise=0, sigma=0.01), epochs=1, batch_size=10))
    run(method)
    assert method.errors is not None
    assert len(method.errors) == 0
    assert "warning: JTT's first network misclassifies 0 of 100 training images" in capsys.readouterr().err


def test_what_the_errors_hold_of_minorities():
    data = Data(Grouped(ThreeWay(70), biased), seed=0, views={"weak": []})
    minority = torch.arange(6, 70, 7)  # whose attribute is not their label
    errors = torch.cat([minority[:4], torch.tensor([0, 1])])
    assert minority_found(data, errors) == pytest.approx({"jtt/minority_recall": 0.4, "jtt/minority_precision": 4 / 6})
    assert minority_found(data, errors[:0]) == {"jtt/minority_recall": 0.0}
    assert minority_found(make_data(), errors) == {}


@pytest.mark.parametrize(
    "options", [{"up_weight": -1}, {"identification": {"epochs": 0}}, {"identification": {"errors": "before"}}]
)
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=f"method.{next(iter(options))}"):
        JTT(**options)
