"""The meaning of "auto": the paper's numbers at the paper's scale, and the scaling rule elsewhere."""

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit
from robustlab.methods.label_noise.crosssplit.timeline import Schedule, warmup_data
from tests.methods.crosssplit.paper import at_paper_scale
from tests.methods.harness import make_context, make_data, run

PAPER = Schedule(warmup=10, delta=10.0, lambda_u=30.0, alpha=4.0, strong=1.0)


@pytest.mark.parametrize(
    ("epochs", "steps", "warmup", "after"),
    [
        (300, 98, 10, 28_420),  # CIFAR-10, official code: 25,000 labels per network, batches of 256
        (1000, 98, 10, 97_020),  # never more than the paper's numbers
        (26, 98, 8, 1_764),  # the same data, a short run: at most a third of it
        (90, 40, 25, 2_600),  # 5,000 images, batches of 64
        (60, 12, 20, 480),  # digits
        (1, 98, 0, 98),
    ],
)
def test_auto_counts_updates(epochs, steps, warmup, after):
    settings = CrossSplit().settings
    assert settings.follows_the_run
    found = Schedule.of(settings, epochs=epochs, steps=steps)
    share = min(after / 28_420, 1)
    assert (found.warmup, (epochs - warmup) * steps) == (warmup, after)
    assert (found.lambda_u, found.alpha, found.strong) == pytest.approx((30 * share, 4 * share, share), rel=1e-12)
    assert found.delta == pytest.approx(980 / steps, rel=1e-12)
    if after >= 28_420:
        assert found == PAPER


def test_numbers_stay_as_they_are():
    settings = at_paper_scale(warmup={"epochs": 10}).settings
    assert not settings.follows_the_run
    assert Schedule.of(settings, epochs=60, steps=12) == PAPER


@pytest.mark.parametrize(("wanted", "labels", "data"), [
    ("auto", 25_000, "own_half"), ("auto", 24_999, "full"), ("own_half", 10, "own_half"), ("full", 50_000, "full"),
])  # fmt: skip
def test_small_halves_warm_up_on_all_labels(wanted, labels, data):
    assert warmup_data(wanted, labels=labels) == data


def test_the_run_has_the_schedule_and_says_so(capsys):
    method = CrossSplit(proj_dim=16)
    method.build(make_context(make_data(train=400), epochs=40, batch_size=20))  # 20 warm-up steps, 10 after it
    assert [(stage.name, stage.epochs) for stage in method.stages()] == [("warmup", 13), ("ssl", 27)]
    said = " ".join(capsys.readouterr().err.split())
    assert "13 warm-up epochs on all labels (130 updates per network, then 270)" in said
    assert "delta 98 epochs, lambda_u 0.285, MixUp alpha 0.038, 1.0 % strong views" in said
    assert method.step.lambda_u(13) == 0
    assert method.step.lambda_u(29) == pytest.approx(30 * 270 / 28420)
    assert [method.step.gamma(age) for age in (13, 39)] == [0.6, 0.6]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_the_share_of_strong_views_among_the_mixed_images(share, expected):
    method = at_paper_scale(mixup={"strong": share}, unlabelled={"batch_ratio": 1.0})
    method.build(make_context(make_data(train=800), epochs=3, batch_size=200))
    chosen = []
    for item in method.batches(method.stages()[1], 0, 0):
        labelled, unlabelled = item.labelled, item.unlabelled
        assert unlabelled is not None
        batches = [labelled, labelled, unlabelled, unlabelled]
        images = method.step._inputs(batches, item, 1)
        weak = torch.cat([*labelled.views[:2], *unlabelled.views[:2]])
        strong = torch.cat([*labelled.views[2:], *unlabelled.views[2:]])
        is_strong = (images == strong).flatten(1).all(dim=1)
        assert (is_strong | (images == weak).flatten(1).all(dim=1)).all()
        assert not (weak == strong).flatten(1).all(dim=1).any()
        chosen.append(is_strong)
        assert torch.equal(images, method.step._inputs(batches, item, 1))
    assert torch.cat(chosen).double().mean().item() == pytest.approx(expected, abs=0.03)


def test_a_share_of_strong_views_is_trained_on():
    method = at_paper_scale(mixup={"strong": 0.5})
    method.build(make_context(make_data(train=100), epochs=2, batch_size=16))
    run(method)
    assert all(p.isfinite().all() for learner in method.learners.values() for p in learner.network.parameters())


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"warmup": {"epochs": "some"}}, "warmup.epochs"),
        ({"warmup": {"data": "half"}}, "warmup.data"),
        ({"loss": {"lambda_u": "half"}}, "loss.lambda_u"),
        ({"loss": {"ramp_epochs": -1}}, "loss.ramp_epochs"),
        ({"mixup": {"alpha": -1}}, "mixup.alpha"),
        ({"mixup": {"strong": 1.5}}, "mixup.strong"),
        ({"gamma": {"delta": -3}}, "gamma.delta"),
        ({"gamma": {"delta": "long"}}, "gamma.delta"),
    ],
)
def test_other_words_and_numbers_out_of_range_are_refused(values, key):
    with pytest.raises(ConfigError, match=key):
        CrossSplit(**values)
