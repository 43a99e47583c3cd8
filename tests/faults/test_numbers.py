"""NaN and infinity in a loss, a gradient or a metric: found before a checkpoint holds them, and never the best."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from robustlab.engine.checkpoint import read_checked
from robustlab.methods.erm import ERM
from tests.end_to_end.harness import run_folder, train
from tests.faults.injectors import in_order, replace
from tests.faults.subjects import arguments

STEP = 8


class _Spoil(torch.autograd.Function):
    """The identity, with a gradient of NaN."""

    @staticmethod
    def forward(context, value):
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * math.nan


def spoil(kind: str) -> None:
    """Spoil the loss or the gradient of one step of cross-entropy, or the accuracy of one evaluation."""
    import robustlab.engine.loop as loop

    real_loss, real_evaluation, calls = ERM.loss, loop.evaluate_splits, [0]

    def loss(self, batch, position):
        scalars = dict(real_loss(self, batch, position))
        if position.global_step == STEP and kind != "metric":
            wrong = {"nan": math.nan, "inf": math.inf}.get(kind)
            scalars["loss"] = _Spoil.apply(scalars["loss"]) if wrong is None else scalars["loss"] * wrong
        return scalars

    def evaluate_splits(*arguments, **options):
        calls[0] += 1
        measured = real_evaluation(*arguments, **options)
        return {**measured, "test/accuracy": math.nan} if calls[0] == 1 and kind == "metric" else measured

    ERM.loss, loop.evaluate_splits = loss, evaluate_splits  # type: ignore[method-assign]


def all_finite(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(all_finite, value.values()))
    return all(map(all_finite, value)) if isinstance(value, list | tuple) else True


@pytest.mark.fault("F11")
@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_a_spoiled_step_ends_with_5_before_a_checkpoint_holds_it(tmp_path, kind):
    log = tmp_path / "log.txt"
    assert train(arguments("erm", tmp_path / "out"), log, before=partial(spoil, kind)) == 5, log.read_text()
    text = log.read_text()
    assert f"in global step {STEP};" in text or f"infinite by global step {STEP};" in text
    assert "the last good checkpoint is kept. Lower optimizer.lr" in text
    assert "Traceback" not in text
    folder = run_folder(tmp_path / "out") / "checkpoints"
    assert read_checked(folder / "last.pt")["cursor"]["global_step"] == 6
    assert all(all_finite(read_checked(path)["learners"]) for path in (folder / "last.pt", folder / "previous.pt"))


@pytest.mark.fault("F11")
def test_a_metric_of_nan_is_never_the_best(tmp_path):
    import json

    log = tmp_path / "log.txt"
    assert train(arguments("erm", tmp_path / "out"), log, before=partial(spoil, "metric")) == 0, log.read_text()
    folder: Path = run_folder(tmp_path / "out")
    best = json.loads((folder / "results.json").read_text())["selection"]["best_test"]
    assert best["epoch"] > 0
    assert math.isfinite(best["test/accuracy"])


def nothing(session: object) -> None:
    return None


def trusting_read(meter) -> None:
    """The negative control: scalars are read, and not looked at."""
    for scalars in meter._fresh:
        meter._interval.append({name: float(value) for name, value in scalars.items()})
    meter._fresh = []


@pytest.mark.fault("F11", control=True)
def test_number_control_an_engine_that_does_not_look_saves_nan(tmp_path):
    blind = [
        partial(replace, "robustlab.engine.session:_refuse_broken_weights", nothing),
        partial(replace, "robustlab.engine.meter:Meter.read", trusting_read),
    ]
    log = tmp_path / "log.txt"
    before = partial(in_order, *blind, partial(spoil, "gradient"))
    assert train(arguments("erm", tmp_path / "out", "trainer.max_steps=11"), log, before=before) in (0, 1, 5)
    assert not all_finite(read_checked(run_folder(tmp_path / "out") / "checkpoints" / "last.pt")["learners"])
