import pytest
import torch
import torch.nn.functional as F

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.methods.erm import ERM
from robustlab.methods.groups.class_balanced import ClassBalanced, inverse_frequency
from tests.data.toy_source import Toy
from tests.methods.harness import assert_equal, make_context, run, snapshot


class Lopsided(Toy):
    """Class 0 four times out of five."""

    def split(self, name):
        split = super().split(name)
        split.labels.copy_((torch.arange(len(split.labels)) % 5 == 4).long())
        return split


def make_data() -> Data:
    return Data(Lopsided(50, 2), seed=0, views={"weak": []})


def built(method, *, epochs: int = 2):
    method.build(make_context(make_data(), epochs=epochs, batch_size=10))
    return method


def test_inverse_frequency():
    assert inverse_frequency(torch.tensor([3, 0, 3, 3])).tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])


def test_classes_are_drawn_alike_and_an_epoch_is_as_long_as_ever():
    method = built(ClassBalanced())
    stage = method.stages()[0]
    assert method.steps_per_epoch(stage, 0) == 5
    targets = torch.cat([batch.targets for epoch in range(20) for batch in method.batches(stage, epoch, 0)])
    assert len(targets) == 1000
    assert targets.double().mean().item() == pytest.approx(0.5, abs=0.05)  # 0.2 of the samples; 3 deviations


def test_the_loss_of_a_class_is_weighted_by_how_rare_it_is():
    method, plain = built(ClassBalanced(balance="loss")), built(ERM())
    stage = method.stages()[0]
    batch = next(method.batches(stage, 0, 0))
    assert torch.equal(batch.index, next(plain.batches(stage, 0, 0)).index)  # all images, none twice
    with torch.no_grad():
        losses = F.cross_entropy(plain.learners["network"](batch.images), batch.targets, reduction="none")
    weights = torch.tensor([50 / (2 * 40), 50 / (2 * 10)])
    wanted = (weights[batch.targets] * losses).mean()
    torch.testing.assert_close(method.loss(batch, None)["loss"].detach(), wanted)


def test_of_classes_in_balance_the_weighted_loss_is_cross_entropy():
    ends = []
    for method in (ClassBalanced(balance="loss"), ERM()):
        method.build(make_context(Data(Toy(40, 2), seed=0, views={"weak": []}), epochs=2, batch_size=10))
        run(method)
        ends.append(snapshot(method)["learners"])
    assert_equal(*ends)


def test_values_out_of_range():
    with pytest.raises(ConfigError, match=r"method.balance is 'sampler'; it must be one of draws, loss"):
        ClassBalanced(balance="sampler")  # type: ignore[arg-type]
