import math

import pytest
import torch
import torch.nn.functional as F

from robustlab.core.errors import ConfigError
from robustlab.methods.erm import ERM
from robustlab.methods.label_noise.elr import ELR, early_learning_penalty
from tests.methods.harness import Options, accuracy, make_context, make_data, run, snapshot


def test_penalty():
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    t = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    assert early_learning_penalty(p, t).item() == pytest.approx(math.log(0.5) / 2)


def test_targets_are_moving_averages_of_the_predictions_of_each_sample():
    method = ELR(strength=2.0, momentum=0.8)
    method.build(make_context(make_data(), epochs=3, batch_size=32))
    by_hand: dict[int, torch.Tensor] = {}
    network = method.learners["network"].network

    def check(batch, position):
        state = {name: value.clone() for name, value in network.state_dict().items()}
        with torch.no_grad():
            logits = network.train()(batch.images)
        network.load_state_dict(state)
        p = logits.softmax(dim=1).clamp(1e-4, 1 - 1e-4)
        rows = p / p.sum(dim=1, keepdim=True)
        for i, row in zip(batch.index.tolist(), rows, strict=True):
            by_hand[i] = 0.8 * by_hand.get(i, torch.zeros(5)) + 0.2 * row
        wanted = torch.stack([by_hand[i] for i in batch.index.tolist()])
        penalty = torch.log(1 - (wanted * p).sum(dim=1)).mean()
        expected.append((F.cross_entropy(logits, batch.targets) + 2 * penalty).item())

    expected: list[float] = []
    run(method, before=check)
    for index, row in by_hand.items():
        torch.testing.assert_close(method.targets[index], row, rtol=1e-4, atol=1e-6)
    assert snapshot(method)["method"]["targets"].shape == (200, 5)
    assert len(by_hand) == 200


def test_the_loss_is_cross_entropy_plus_penalty():
    method = ELR(strength=2.0)
    method.build(make_context(make_data(), epochs=1, batch_size=32))
    batch = next(method.batches(method.stages()[0], 0, 0))
    done = method.train_step(batch, None)  # type: ignore[arg-type]
    torch.testing.assert_close(done["loss"], done["loss_labelled"] + 2 * done["loss_penalty"])
    assert done["loss_penalty"] < 0


@pytest.mark.slow
def test_it_is_ahead_of_cross_entropy():
    found = {}
    for method in (ELR(), ERM()):
        data = make_data(train=2000, test=2000, classes=10, dim=32, sigma=1.5)
        method.build(make_context(data, epochs=20, batch_size=128, options=Options(widths=(96, 96), cosine_to=1e-3)))
        run(method)
        found[type(method)] = accuracy(method)
    assert found[ELR] > found[ERM] + 0.1


@pytest.mark.parametrize("options", [{"strength": -1.0}, {"momentum": 1.0}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ELR(**options)
