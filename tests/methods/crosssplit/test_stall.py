"""A run whose networks unlearn what they knew after warm-up says so."""

import pytest

from robustlab.methods.label_noise.crosssplit.label_record import stall

FINAL = {
    "test/accuracy": 0.655,
    "diagnostics/guess_accuracy": 0.661,
    "diagnostics/peer_accuracy": 0.668,
    "diagnostics/soft_label_accuracy": 0.709,
}


def ends(warmup: float, ssl: float, name: str = "test/accuracy") -> dict[str, dict[str, float]]:
    return {"warmup": {name: warmup}, "ssl": {name: ssl}}


def test_the_warning_has_the_figures():
    (text,) = stall(FINAL, ends(0.708, 0.655))
    assert text.startswith("test/accuracy fell from 70.8 % at the end of warm-up to 65.5 %")
    assert "guesses for unlabelled images 66.1 %, the peer's predictions 66.8 %, soft labels 70.9 %" in text


@pytest.mark.parametrize("ssl", [0.699, 0.708, 0.95])
def test_no_warning_where_accuracy_has_not_fallen(ssl):
    assert stall(FINAL, ends(0.708, ssl)) == []


def test_what_is_not_known_is_left_out():
    (text,) = stall({"val/accuracy": 0.3}, ends(0.4, 0.3, "val/accuracy"))
    assert "to 30.0 %: the networks learn" in text
    assert stall(FINAL, {"ssl": {"test/accuracy": 0.1}}) == [], "a run without warm-up has nothing to fall from"
    assert stall(FINAL, {"warmup": {"test/accuracy": 0.9}}) == [], "stopped by max_steps before the second stage"
