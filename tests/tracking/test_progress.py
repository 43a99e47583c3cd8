"""Progress: plain lines for log files, a bar for terminals, almost no cost."""

import io
import re

import pytest
from rich.console import Console

from robustlab.core.console import duration, make_console, percent
from robustlab.core.errors import ConfigError
from robustlab.tracking.progress import Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(progress, clock, *, epochs, steps=10, seconds=0.1, stages=("train",)):
    with progress:
        for stage in stages:
            for epoch in range(epochs):
                for step in range(steps):
                    clock.now = round(clock.now + seconds, 6)
                    progress.step(stage, epoch, step + 1, steps)
                    progress.metrics({"train/loss": 1.5, "train/lr/network": 0.1})
                progress.epoch(stage, epoch, {"test/accuracy": 0.9 + epoch / 1000, "time/samples_per_second": 1234.4})


def lines(epochs, **keywords):
    clock, text = Clock(), io.StringIO()
    stages = keywords.get("stages", ("train",))
    progress = Progress(None, total_epochs=epochs * len(stages), console=make_console(text), clock=clock)
    run(progress, clock, epochs=epochs, **keywords)
    assert "\x1b" not in text.getvalue()
    assert "\r" not in text.getvalue()
    return text.getvalue().splitlines()


def test_quick_epochs_share_a_line_every_ten_seconds():
    shown = lines(60)  # 1 s each
    numbers = [int(re.match(r"train epoch (\d+)/60", line)[1]) for line in shown]
    assert numbers == [1, 11, 21, 31, 41, 51, 60]
    assert shown[0] == "train epoch 1/60  loss 1.500  test 90.0 %  1,234 images/s  ETA 59 s"
    assert shown[-1] == "train epoch 60/60  loss 1.500  test 95.9 %  1,234 images/s"


def test_slow_epochs_have_a_line_each_and_long_ones_more():
    assert len(lines(5, seconds=2.0)) == 5
    shown = lines(2, seconds=20.0)
    assert [re.search(r"step \d+/10", line)[0] for line in shown if "step" in line] == [
        "step 4/10", "step 7/10", "step 10/10", "step 3/10", "step 6/10", "step 9/10",
    ]  # fmt: skip


def test_epochs_are_counted_over_stages():
    shown = lines(3, seconds=2.0, stages=("discover", "classify"))
    assert [line.split("  ")[0] for line in shown] == [
        *(f"discover epoch {number}/6" for number in (1, 2, 3)),
        *(f"classify epoch {number}/6" for number in (4, 5, 6)),
    ]


def test_a_run_resumed_in_a_later_stage_counts_from_there():
    text = io.StringIO()
    progress = Progress({}, total_epochs=6, stages={"discover": 3, "classify": 3}, console=make_console(text))
    progress.step("classify", 1, 5, 10)
    progress.epoch("classify", 1, {})
    assert text.getvalue().startswith("classify epoch 5/6")


def test_time_left_follows_a_change_of_pace():
    """CrossSplit's epochs after the warm-up take several times as long."""
    clock, text = Clock(), io.StringIO()
    progress = Progress({"every_seconds": 0}, total_epochs=4, console=make_console(text), clock=clock)
    for epoch, seconds in enumerate((1.0, 1.0, 6.0, 6.0)):
        for step in range(10):
            clock.now = round(clock.now + seconds / 10, 6)
            progress.step("train", epoch, step + 1, 10)
        progress.epoch("train", epoch, {})
    ends = [line for line in text.getvalue().splitlines() if "step" not in line]
    assert [re.search(r"ETA .*", line)[0] if "ETA" in line else None for line in ends] == [
        "ETA 3 s", "ETA 2 s", "ETA 6 s", None,
    ]  # fmt: skip


def test_a_terminal_gets_one_bar_that_goes_away():
    clock, text = Clock(), io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    progress = Progress({"mode": "auto"}, total_epochs=3, console=console, clock=clock)
    assert progress.mode == "bar"
    run(progress, clock, epochs=3)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    assert "train epoch 2/3" in shown
    assert "step 5/10" in shown
    assert "test 90.1 %" in shown
    assert "images/s" in shown


def test_off_and_other_ranks_are_silent():
    for keywords in ({"cfg": {"mode": "off"}}, {"cfg": {"mode": "lines"}, "is_main": False}):
        clock, text = Clock(), io.StringIO()
        progress = Progress(keywords.pop("cfg"), total_epochs=3, console=make_console(text), clock=clock, **keywords)
        run(progress, clock, epochs=3)
        assert text.getvalue() == ""


def test_an_unknown_mode_is_a_config_error():
    with pytest.raises(ConfigError, match=r"tracker\.progress\.mode=fancy.*auto, bar, lines, off"):
        Progress({"mode": "fancy"}, total_epochs=1)


def test_numbers_for_people():
    assert [duration(s) for s in (0.4, 59.6, 185, 7630, 270000)] == [
        "0 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 07 min",
        "3 d 03 h",
    ]
    assert percent(0.93149) == "93.1 %"
