import pytest
import torch
import torch.nn.functional as F

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.transforms.augment import mixup
from robustlab.diagnostics.memorisation import Memorisation
from robustlab.engine.method import Position
from robustlab.methods.erm import ERM
from tests.methods.harness import accuracy, make_context, make_data, run


def built(**options) -> ERM:
    method = ERM(**options)
    method.build(make_context(make_data(noise=options.pop("noise", 0.5)), epochs=2, batch_size=32))
    return method


def test_label_smoothing_and_mixup_change_the_targets_and_nothing_else():
    position = Position("train", 0, 5, 5)
    method = built(label_smoothing=0.1, mixup_alpha=0.4)
    network = method.learners["network"].network.train()
    batch = next(method.batches(method.stages()[0], 0, 0))
    loss = method.loss(batch, position)["loss"]
    generator = rng.generator(rng.fold(0, "mixup", 0, 5))
    one_hot = F.one_hot(batch.targets, 5).float()
    images, wanted, lam = mixup(batch.images, one_hot, alpha=0.4, generator=generator)
    assert lam != 1
    smooth = 0.9 * wanted + 0.1 / 5
    torch.testing.assert_close(loss, -(smooth * network(images).log_softmax(dim=1)).sum(dim=1).mean())
    plain = built()
    wanted = F.cross_entropy(plain.learners["network"].network.train()(batch.images), batch.targets)
    torch.testing.assert_close(plain.loss(batch, position)["loss"], wanted)


def test_it_learns_what_there_is_to_learn_and_memorises_the_rest():
    method = ERM()
    method.build(make_context(make_data(train=300, views={"weak": [], "strong": []}), epochs=30, batch_size=32))
    ends = run(method, diagnostics=[Memorisation(every=1)])
    assert ends[-1]["diagnostics/memorised"] > ends[0]["diagnostics/memorised"] + 0.3
    clean = ERM()
    clean.build(make_context(make_data(train=300, noise=0.0), epochs=10, batch_size=32))
    assert set(run(clean, diagnostics=[Memorisation()])[-1]) == {
        "loss",
        "accuracy",
    }  # no wrong labels: nothing to count
    assert accuracy(clean) > 0.9


@pytest.mark.parametrize("options", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"mixup_alpha": -1.0}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ERM(**options)
