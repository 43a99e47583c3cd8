"""Lengths in a schedule that can be compared with the run before any data are read, and without torch."""

import subprocess
import sys

import pytest

from robustlab.config.check import problems
from robustlab.config.compose import compose


def found(*overrides: str) -> list[str]:
    return problems(compose(overrides))


RUN = "the run (trainer.epochs)"
LONGER = "set it lower or train longer"
MILESTONES = "so the rate never decays; set lower values, or scheduler=cosine or none"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["scheduler=timm_cosine", "scheduler.schedule.warmup_t=100", "trainer.epochs=11"],
            f"warmup_t: a warm-up of 100 epochs uses up all of {RUN}, which has 11 epochs; {LONGER}",
        ),
        (
            ["scheduler=timm_cosine", "scheduler.schedule.warmup_t=60"],
            f"warmup_t: a warm-up of 60 epochs uses up all of {RUN}, which has 60 epochs; {LONGER}",
        ),
        (
            ["scheduler.schedule.T_max=30"],
            f"T_max: 30 epochs, but {RUN} has 60; set scheduler.schedule.T_max=total",
        ),
        (
            ["scheduler.schedule.T_max=6000"],
            f"T_max: 6000 epochs, but {RUN} has 60; set scheduler.schedule.T_max=total",
        ),
        (
            ["scheduler=onecycle", "scheduler.interval=epoch", "scheduler.schedule.total_steps=1380"],
            f"total_steps: 1380 epochs, but {RUN} has 60; set scheduler.schedule.total_steps=total",
        ),
        (
            ["scheduler=timm_cosine", "scheduler.schedule.warmup_prefix=true"],
            f"t_initial: 60 epochs after 5 of warm-up, but {RUN} has 60; set scheduler.schedule.t_initial=55",
        ),
        (
            ["scheduler=multistep", "trainer.epochs=30"],
            f"milestones: 30, 45 epochs lie beyond the end of {RUN}, which has 30, {MILESTONES}",
        ),
        (
            ["scheduler=timm_multistep", "trainer.epochs=30"],
            f"decay_t: 31, 71, 91 epochs lie beyond the end of {RUN}, which has 30, {MILESTONES}",
        ),
        (
            ["scheduler=timm_cosine", "scheduler.interval=step", "+scheduler.schedule.t_in_epochs=true"],
            "t_in_epochs: true counts epochs, but scheduler.interval=step does not; leave t_in_epochs out, it follows "
            "scheduler.interval",
        ),
    ],
)
def test_lengths_that_do_not_fit(overrides, message):
    assert found(*overrides) == [f"scheduler.schedule.{message}"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["scheduler.schedule.T_max=60"],
        ["scheduler.schedule.T_max=59"],  # the last epoch has eta_min
        ["scheduler.schedule.T_max=6000", "scheduler.interval=step"],  # known once the data have been read
        ["scheduler=multistep", "trainer.epochs=31"],
        ["scheduler=timm_multistep", "trainer.epochs=31"],  # timm: one epoch before the milestone
        ["scheduler=timm_cosine", "scheduler.schedule.warmup_t=59"],
        ["scheduler=timm_cosine", "+scheduler.schedule.t_in_epochs=true"],
        ["scheduler=timm_cosine", "scheduler.schedule.t_initial=10", "+scheduler.schedule.cycle_limit=6"],
        ["scheduler=none", "trainer.epochs=11"],
        ["experiment=crosssplit/official_code", "dataset=cifar10"],  # T_max is 300, and its loop runs 301 epochs
    ],
)
def test_lengths_that_fit(overrides):
    assert found(*overrides) == []


def test_the_check_needs_no_torch():
    program = "import robustlab.config.check, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
