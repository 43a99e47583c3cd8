from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from robustlab.core.errors import ConfigError
from robustlab.engine.method import Position
from robustlab.methods.erm import ERM
from robustlab.methods.label_noise.co_teaching import CoTeaching, forget_share, small_losses
from tests.methods.harness import Options, accuracy, flat, make_context, make_data, run


@pytest.mark.parametrize(
    ("epoch", "exponent", "share"), [(0, 1, 0.0), (5, 1, 0.25), (10, 1, 0.5), (99, 1, 0.5), (2, 2, 0.2), (4, 0.5, 0.1)]
)
def test_share_that_is_left_out(epoch, exponent, share):
    assert forget_share(epoch, rate=0.5, num_gradual=10, exponent=exponent) == pytest.approx(share)


def test_small_losses_are_picked():
    losses = torch.tensor([3.0, 1.0, 2.0, 0.5])
    assert small_losses(losses, 0.5).tolist() == [3, 1]
    assert small_losses(losses, 0.0).tolist() == [3]
    assert len(small_losses(torch.zeros(10), 1 - 0.9)) == 1
    assert len(small_losses(torch.zeros(10), 1 - 0.8)) == 2


def test_each_network_learns_from_the_others_choice():
    method = CoTeaching(forget_rate=0.5, num_gradual=0)
    method.build(make_context(make_data(), epochs=1, batch_size=32))
    batch = next(method.batches(method.stages()[0], 0, 0))
    copies = [deepcopy(learner.network).train() for learner in method.learners.values()]
    losses = [F.cross_entropy(copy(batch.images), batch.targets, reduction="none") for copy in copies]
    chosen = [loss.topk(16, largest=False).indices for loss in losses]
    losses[0][chosen[1]].mean().backward()
    losses[1][chosen[0]].mean().backward()
    done = method.train_step(batch, Position("train", 0, 0, 0))
    torch.testing.assert_close(done["loss_network1"], losses[0][chosen[1]].mean().detach())
    for copy, learner in zip(copies, method.learners.values(), strict=True):
        optimizer = torch.optim.SGD(copy.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        optimizer.step()
        wanted, got = flat(copy.state_dict()), flat(learner.network.state_dict())
        assert all(torch.allclose(wanted[name], got[name]) for name in wanted)


def test_the_rate_is_the_true_one_unless_given(capsys):
    data = make_data(noise=0.4)
    wrong = float((data.assigned != data.clean).double().mean())
    assert wrong < 0.35  # a redrawn label may be the correct one
    for rate, wanted, origin in ((None, wrong, "true"), (0.2, 0.2, "")):
        method = CoTeaching(forget_rate=rate)
        method.build(make_context(data, epochs=1, batch_size=32))
        assert method.rate == wanted
        said = capsys.readouterr().err
        assert (f"{100 * wrong:.1f} % of the samples, the true rate of wrong labels" in said) is bool(origin)
    data.noise_record = lambda: {"rate": 0.3, "true_rate": None}  # added to labels that are not known to be right
    method = CoTeaching()
    method.build(make_context(data, epochs=1, batch_size=32))
    assert method.rate == 0.3
    assert "30.0 % of the samples, the nominal rate of the noise" in capsys.readouterr().err
    data.noise_record = lambda: {"rate": None, "true_rate": None}
    with pytest.raises(ConfigError, match=r"set method\.forget_rate"):
        CoTeaching().build(make_context(data, epochs=1, batch_size=32))


@pytest.mark.slow
def test_it_is_ahead_of_cross_entropy_and_picks_right_labels():
    found = {}
    for method in (CoTeaching(), ERM()):
        data = make_data(train=2000, test=2000, classes=10, dim=32, sigma=1.5)
        method.build(make_context(data, epochs=20, batch_size=128, options=Options(widths=(96, 96), cosine_to=1e-3)))
        last = run(method)[-1]
        found[type(method)] = accuracy(method)
        if isinstance(method, CoTeaching):
            assert last["diagnostics/label_precision"] > 0.8  # 0.55 of all labels are right
    assert found[CoTeaching] > found[ERM] + 0.1


@pytest.mark.parametrize("options", [{"forget_rate": 1.0}, {"num_gradual": -1}, {"exponent": 0.0}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        CoTeaching(**options)
