"""What "auto" stands for: the paper's numbers at the paper's scale, and the rule elsewhere."""

import pytest

from robustlab.errors import ConfigError
from robustlab.methods.crosssplit import CrossSplit
from robustlab.methods.crosssplit.schedule import Schedule
from tests.methods.harness import make_context, make_data

AUTO = {"warmup": {"epochs": "auto"}, "loss": {"lambda_u": "auto"}}


@pytest.mark.parametrize(
    ("epochs", "warmup_steps", "steps", "warmup", "lambda_u"),
    [
        (300, 49, 98, 10, 30.0),  # CIFAR-10, official code: 25,000 labels per network
        (26, 49, 98, 10, 30 * 1568 / 28420),  # the same data, a short run
        (60, 20, 40, 25, 30 * 1400 / 28420),  # 5,000 images, batches of 64 and 128
        (60, 6, 12, 30, 30 * 360 / 28420),  # digits: half of the run is not 490 updates
        (1000, 49, 98, 10, 30.0),  # never more than the paper's weight
    ],
)
def test_auto_counts_updates(epochs, warmup_steps, steps, warmup, lambda_u):
    settings = CrossSplit(**AUTO).settings  # type: ignore[arg-type]
    assert settings.follows_the_run
    found = Schedule.of(settings, epochs=epochs, warmup_steps=warmup_steps, steps=steps)
    assert found == Schedule(warmup, pytest.approx(lambda_u))


def test_numbers_stay_as_they_are():
    settings = CrossSplit().settings
    assert not settings.follows_the_run
    assert Schedule.of(settings, epochs=60, warmup_steps=6, steps=12) == Schedule(10, 30.0)


def test_the_run_has_the_schedule_and_says_so(capsys):
    method = CrossSplit(**AUTO, proj_dim=16)  # type: ignore[arg-type]
    method.build(make_context(make_data(train=400), epochs=40, batch_size=20))  # 5 warm-up steps, 10 after it
    assert [(stage.name, stage.epochs) for stage in method.stages()] == [("warmup", 20), ("ssl", 20)]
    said = capsys.readouterr().err
    assert "20 epochs of warm-up (100 updates of each network, 200 after it), lambda_u 0.211\n" in said
    assert method.step.lambda_u(19.99) == 0
    assert method.step.lambda_u(36) == pytest.approx(30 * 200 / 28420)
    assert [method.step.gamma(age) for age in (20, 39)] == [0.6, 0.6]


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"warmup": {"epochs": "some"}}, "warmup.epochs"),
        ({"loss": {"lambda_u": "half"}}, "loss.lambda_u"),
        ({"loss": {"ramp_epochs": -1}}, "loss.ramp_epochs"),
        ({"gamma": {"delta": -3}}, "gamma.delta"),
    ],
)
def test_other_words_and_negative_numbers_are_refused(values, key):
    with pytest.raises(ConfigError, match=key):
        CrossSplit(**values)
