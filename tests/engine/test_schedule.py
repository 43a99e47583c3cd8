"""Every shipped schedule, counted in epochs and in updates, gives the rates that its definition gives."""

from bisect import bisect_right
from itertools import accumulate
from math import cos, pi

import pytest
import torch
import torch.nn.functional as F

from robustlab.config.compose import compose
from robustlab.config.hydra_session import options
from robustlab.core.errors import ConfigError
from robustlab.engine.build_method import build_method
from robustlab.engine.learner import Learner
from robustlab.engine.method import Method
from tests.methods.harness import RUNTIME, make_data

LR, STEPS = 0.1, 3
"""STEPS: updates of each epoch, 12 samples in batches of 4."""


def build(*overrides: str, epochs: int) -> Method:
    common = ("method=erm", "model=mlp", "model.widths=[4]", f"optimizer.lr={LR}", "trainer.batch_size=4")
    cfg = compose([*common, f"trainer.epochs={epochs}", *overrides])
    return build_method(cfg, make_data(train=12, test=5, dim=4), RUNTIME)


def trained(learner: Learner, epochs: int, steps: int = STEPS) -> list[float]:
    """Train as the engine does; return the rate of each call of `step`."""
    rates = []
    inputs, targets = torch.zeros(4, 1, 1, 4), torch.zeros(4, dtype=torch.int64)
    for _ in range(epochs):
        for _ in range(steps):
            rates.append(learner.lr)
            learner.step(F.cross_entropy(learner(inputs), targets))
        learner.end_epoch(0.5)
    return rates


def cosine(place: int, length: int) -> float:
    return LR * (1 + cos(pi * place / length)) / 2


def onecycle(place: int, length: int) -> float:
    """From LR / 25 to LR in the first 30 %, then to LR / 25 / 10,000 at the last place; half cosines."""
    top, last, low, end = 0.3 * length - 1, length - 1, LR / 25, LR / 25 / 1e4
    if place <= top:
        return LR + (low - LR) * (1 + cos(pi * place / top)) / 2
    return end + (LR - end) * (1 + cos(pi * (place - top) / (last - top))) / 2


def multistep(place: int, length: int) -> float:
    return LR * 0.1 ** bisect_right([30, 45], place)


def timm_cosine(place: int, length: int) -> float:
    return 1e-4 + (LR - 1e-4) * place / 5 if place < 5 else cosine(place, length)


def timm_multistep(place: int, length: int) -> float:
    return 1e-6 + (LR - 1e-6) * place / 5 if place < 5 else LR * 0.1 ** bisect_right([31, 71, 91], place + 1)


ORACLES = {
    "none": lambda place, length: LR,
    "cosine": cosine,
    "onecycle": onecycle,
    "multistep": multistep,
    "timm_cosine": timm_cosine,
    "timm_multistep": timm_multistep,
}
EPOCHS = {"multistep": 50, "timm_multistep": 100}


def test_every_shipped_schedule_has_an_oracle():
    assert set(options("scheduler")) == set(ORACLES)


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", ORACLES)
def test_rates(name, interval):
    epochs = EPOCHS.get(name, 20)
    method = build(f"scheduler={name}", f"scheduler.interval={interval}", epochs=epochs)
    length = epochs if interval == "epoch" else epochs * STEPS
    places = [step // STEPS if interval == "epoch" else step for step in range(epochs * STEPS)]
    wanted = [ORACLES[name](place, length) for place in places]
    found = trained(method.learners["network"], epochs)
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-12)
    if name != "none":
        assert found[-1] < 0.03 * LR  # down where the run ends, whatever the unit


@pytest.mark.parametrize("word", ["total", "total_epochs", "total_steps"])
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_every_word_for_the_length_follows_the_interval(word, interval):
    overrides = [f"scheduler.schedule.T_max={word}", f"scheduler.interval={interval}"]
    scheduler = build("scheduler=cosine", *overrides, epochs=10).learners["network"].scheduler
    assert scheduler is not None
    assert scheduler.T_max == (10 if interval == "epoch" else 10 * STEPS)


def test_accumulated_steps_are_counted_as_updates():
    method = build("scheduler=onecycle", "trainer.accumulate=2", epochs=20)
    found = trained(method.learners["network"], 20)
    assert method.learners["network"].updates == 40  # of 3 batches 2 and 1
    places = accumulate(((step % STEPS) in (2, 0) and step > 0 for step in range(60)), initial=0)
    assert found == pytest.approx([onecycle(place, 40) for place, _ in zip(list(places)[1:], found, strict=True)])


def test_networks_with_epochs_of_several_lengths_come_down_at_their_own_end():
    method = build(
        "scheduler=onecycle", "method=crosssplit", "method.warmup.epochs=2", "method.warmup.batch_size=6",
        "method.warmup.data=own_half", epochs=7,
    )  # fmt: skip
    for number in (1, 2):
        turn = method.turns[number]  # type: ignore[attr-defined]
        lengths = [len(turn.warmup)] * 2 + [turn.steps] * 5
        assert len(set(lengths)) == 2
        scheduler = method.learners[f"network{number}"].scheduler
        assert scheduler is not None
        assert scheduler.total_steps == sum(lengths)


def test_stages_have_schedules_of_their_own_length():
    options = ["method=jtt", "method.identification.epochs=4", "scheduler=cosine", "scheduler.interval=step"]
    method = build(*options, epochs=6)
    for name, epochs in (("identification", 4), ("network", 6)):
        assert trained(method.learners[name], epochs) == pytest.approx(
            [cosine(step, epochs * STEPS) for step in range(epochs * STEPS)]
        )


STEPWISE = "scheduler.interval=step"
REFUSED = [
    (("scheduler=cosine", STEPWISE, "scheduler.schedule.T_max=20"), "T_max: 20 updates, but the run has 60; set"),
    (("scheduler=cosine", STEPWISE, "scheduler.schedule.T_max=600"), "T_max: 600 updates, but the run has 60; set"),
    (("scheduler=cosine", "scheduler.schedule.T_max=10"), "T_max: 10 epochs, but the run has 20; set"),
    (("scheduler=onecycle", "scheduler.schedule.total_steps=59"), "total_steps: 59 updates, but the run has 60"),
    (("scheduler=onecycle", "scheduler.schedule.total_steps=61"), "total_steps: 61 updates, but the run has 60"),
    (("scheduler=multistep", STEPWISE, "scheduler.schedule.milestones=[60,90]"), "60, 90 updates lie beyond the end"),
    (("scheduler=multistep",), "30, 45 epochs lie beyond the end of the run"),
    (("scheduler=multistep", STEPWISE, "scheduler.schedule.milestones=[2,4]"), "decayed to 0.001 after the first 4"),
    (("scheduler=timm_cosine", STEPWISE, "scheduler.schedule.warmup_t=60"), "a warm-up of 60 updates uses up all"),
    (("scheduler=timm_cosine", STEPWISE, "scheduler.schedule.t_initial=20"), "t_initial: 20 updates, but the run has"),
    (("scheduler=timm_cosine", "scheduler.schedule.warmup_prefix=true"), "t_initial: 20 epochs after 5 of warm-up"),
    (("scheduler=timm_multistep",), "31, 71, 91 epochs lie beyond the end of the run"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
def test_what_does_not_fit_the_run_is_refused_before_training(overrides, message):
    with pytest.raises(ConfigError, match="scheduler") as caught:
        build(*overrides, epochs=20)
    assert message in str(caught.value)


def own(target: str, *settings: str) -> list[str]:
    keys = [f"+scheduler.schedule.{setting}" for setting in settings]
    return ["scheduler=cosine", "~scheduler.schedule.T_max", "~scheduler.schedule.eta_min",
            f"scheduler.schedule._target_={target}", *keys]  # fmt: skip


TORCH = "torch.optim.lr_scheduler"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (own(f"{TORCH}.LinearLR", "total_iters=20"), "a warm-up of 20 epochs uses up all of the run"),
        (own(f"{TORCH}.ConstantLR", "total_iters=20"), "a warm-up of 20 epochs uses up all of the run"),
        (
            own(f"{TORCH}.LinearLR", "start_factor=1", "end_factor=0", "total_iters=10"),
            "is zero or almost zero for 10",
        ),
        (own(f"{TORCH}.StepLR", "step_size=20"), "20 epochs lie beyond the end of the run"),
        (own(f"{TORCH}.CyclicLR", "base_lr=0.01", "max_lr=0.1", "step_size_up=50"), "the learning rate only rises"),
        ([*own(f"{TORCH}.ExponentialLR", "gamma=0.5"), STEPWISE], "is zero or almost zero for 40 of them"),
        (own(f"{TORCH}.PolynomialLR", "total_iters=5"), "total_iters: 5 epochs, but the run has 20"),
    ],
)
def test_schedules_that_are_not_shipped_are_tried_out(overrides, message):
    with pytest.raises(ConfigError, match="scheduler") as caught:
        build(*overrides, epochs=20)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        own(f"{TORCH}.CosineAnnealingWarmRestarts", "T_0=5"),
        own(f"{TORCH}.CyclicLR", "base_lr=0.01", "max_lr=0.1", "step_size_up=4"),
        own(f"{TORCH}.ReduceLROnPlateau", "patience=3"),
        own(f"{TORCH}.ExponentialLR", "gamma=1.1"),  # a search for the largest rate
        own(f"{TORCH}.LinearLR", "total_iters=5"),
        own("timm.scheduler.CosineLRScheduler", "t_initial=5", "cycle_limit=4"),
        ["scheduler=cosine", "scheduler.schedule.T_max=19"],
        ["scheduler=multistep", "scheduler.schedule.milestones=[10,45]"],
        ["scheduler=timm_cosine", "scheduler.schedule.warmup_prefix=true", "scheduler.schedule.t_initial=15"],
    ],
)
def test_what_is_meant_that_way_is_not_refused(overrides):
    assert len(trained(build(*overrides, epochs=20).learners["network"], 20)) == 60


def test_a_run_of_one_epoch_and_a_run_for_debugging_fit():
    build("scheduler=cosine", epochs=1)
    build("scheduler=onecycle", epochs=1)
    build("scheduler=timm_multistep", "trainer.max_steps=2", epochs=100)
    with pytest.raises(ConfigError, match="a warm-up of 5 epochs uses up all of the run"):
        build("scheduler=timm_cosine", epochs=1)


def test_a_short_stage_need_not_reach_a_milestone_but_must_leave_the_warm_up():
    build("method=jtt", "method.identification.epochs=4", "scheduler=multistep", epochs=50)
    with pytest.raises(ConfigError, match=r"uses up all of the stage of network 'identification', which has 4 epoch"):
        build("method=jtt", "method.identification.epochs=4", "scheduler=timm_cosine", epochs=50)


def test_a_network_that_is_made_anew_within_a_run_is_not_refused():
    """JTT's second network has more updates once its errors are known."""
    method = build("method=jtt", "scheduler=multistep", STEPWISE, "scheduler.schedule.milestones=[10]", epochs=4)
    method._make_second(torch.arange(12))  # type: ignore[attr-defined]
    assert method.learners["network"].scheduler is not None
