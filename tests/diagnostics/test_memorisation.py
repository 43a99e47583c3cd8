import pytest
import torch

from robustlab.diagnostics.memorisation import Memorisation, by_owner, memorised, wrong_labels
from robustlab.engine.diagnostic import Clock, clock_at
from robustlab.engine.inference import train_predictions
from robustlab.engine.method import Method, Stage
from tests.methods.harness import make_context, make_data


def test_shares_are_counted_over_wrong_labels():
    data = make_data(train=100)
    wrong = wrong_labels(data)
    assert torch.equal(wrong, torch.nonzero(data.assigned != data.clean).flatten())
    assert data.clean is not None
    assert memorised(data.assigned, data) == {"memorised": 1.0, "corrected": 0.0}
    assert memorised(data.clean, data) == {"memorised": 0.0, "corrected": 1.0}
    mixed = data.clean.clone()
    mixed[wrong[:3]] = data.assigned[wrong[:3]]
    assert memorised(mixed, data)["memorised"] == pytest.approx(3 / len(wrong))
    assert memorised(mixed, data, within=wrong[:4])["memorised"] == pytest.approx(3 / 4)
    assert memorised(mixed, data, within=torch.nonzero(data.assigned == data.clean).flatten()) == {}


def test_predictions_are_of_the_samples_at_their_places():
    data = make_data(train=50)
    data.train_indices = torch.arange(1, 50, 2)
    seen = []

    def predict(images):
        seen.append(len(images))
        return {"": images.flatten(1)[:, :5]}

    predicted = train_predictions(data, predict, batch_size=10)[""]
    assert seen == [10, 10, 5]
    assert (predicted[::2] == -1).all()
    images = torch.cat([batch.images for batch in data.evaluation("train", 50).epoch(0)])
    assert torch.equal(predicted[1::2], images.flatten(1)[:, :5].argmax(dim=1))


def measured(method, **settings):
    diagnostic = Memorisation(**settings)
    diagnostic.build(method, method.context)
    return diagnostic


class NeverAsked(Method):
    """A method whose predictions nobody needs."""

    def __init__(self, data):
        self.context = make_context(data, epochs=3, batch_size=10)

    def predict(self, images):
        raise AssertionError("no pass over the data is needed")


def test_nothing_is_measured_without_wrong_or_clean_labels():
    data, noisy = make_data(noise=0.0), make_data()
    noisy.clean = None
    for one in (data, noisy):
        assert not measured(NeverAsked(one), every=1).due(Clock("train", 0, 1, 5))
    assert measured(NeverAsked(make_data()), every=1).due(Clock("train", 0, 1, 5))


def test_when_the_pass_is_due():
    def due(every):
        diagnostic = measured(NeverAsked(make_data()), every=every)
        return [epoch for epoch in range(10) if diagnostic.due(Clock("train", epoch, 10, 0))]

    assert due(4) == [3, 7, 9]
    assert due(0) == []


def test_each_network_is_told_apart_by_the_labels_it_was_trained_on():
    data = make_data(train=60)
    assert data.clean is not None
    first, second = data.train_indices[:30], data.train_indices[30:]
    predicted = {"network1": data.clean.clone(), "network2": data.assigned.clone()}
    predicted["network1"][first] = data.assigned[first]  # it has memorised its own labels alone
    metrics = by_owner(predicted, data, {"network1": first, "network2": second})
    assert metrics["diagnostics/network1/memorised_own"] == 1.0
    assert metrics["diagnostics/network1/memorised_other"] == 0.0
    assert metrics["diagnostics/network2/memorised_own"] == metrics["diagnostics/network2/memorised_other"] == 1.0
    assert metrics["diagnostics/memorised_own"] == 1.0
    wrong = [len(wrong_labels(data, within=half)) for half in (second, first)]
    assert metrics["diagnostics/memorised_other"] == wrong[1] / sum(wrong)  # pooled over networks, by wrong labels
    alone = by_owner(predicted, data, {"network1": data.train_indices})
    assert set(alone) == {
        "diagnostics/network1/memorised_own",
        "diagnostics/memorised_own",
    }


def test_epochs_are_counted_over_the_stages_that_are_observed():
    stages = [Stage("find", 3, evaluated=False), Stage("warmup", 2), Stage("train", 4)]
    assert clock_at(stages, 0, epoch=1, global_step=7) is None
    assert clock_at(stages, 1, epoch=1, global_step=9) == Clock("warmup", 1, 6, 9)
    last = clock_at(stages, 2, epoch=3, global_step=20)
    assert last == Clock("train", 5, 6, 20)
    assert last.is_last
