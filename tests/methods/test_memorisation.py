import pytest
import torch

from robustlab.diagnostics.memorisation import (
    DiagnosticsSettings,
    memorisation_metrics,
    memorised,
    train_predictions,
    wrong_labels,
)
from tests.methods.harness import make_data


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


def test_nothing_is_reported_without_wrong_or_clean_labels():
    settings = DiagnosticsSettings()

    def fail(images):
        raise AssertionError("no pass over the data is needed")

    data = make_data(noise=0.0)
    assert memorisation_metrics(data, fail, settings=settings) == {}
    noisy = make_data()
    noisy.clean = None
    assert memorisation_metrics(noisy, fail, settings=settings) == {}


def test_when_the_pass_is_due():
    every = DiagnosticsSettings(every=4)
    assert [epoch for epoch in range(10) if every.due(epoch, 10)] == [3, 7, 9]
    assert not any(DiagnosticsSettings(every=0).due(epoch, 10) for epoch in range(10))
