"""The loop between two steps: whenever a run is stopped, saved or cut short, it ends as if nothing had happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from robustlab.core.errors import NumericalError
from robustlab.core.signals import StopFlag
from robustlab.engine.checkpoint import Checkpoints
from robustlab.engine.learner import Learner
from robustlab.engine.loop import fit
from robustlab.engine.method import Method, Stage
from robustlab.engine.session import Session, restore
from robustlab.engine.trainer_settings import LoopSettings
from robustlab.methods.erm import ERM
from robustlab.methods.groups.jtt import JTT
from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit
from robustlab.methods.label_noise.elr import ELR
from tests.methods.harness import RUNTIME, Options, assert_equal, make_context, make_data, snapshot

EPOCHS = 3


@dataclass
class Trackers:
    """Keeps the rows that are logged, without the times."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def log(self, values: dict[str, float], **where: Any) -> None:
        self.rows.append({**where, **{name: v for name, v in values.items() if not name.startswith("time/")}})

    def sync(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


class Hooks:
    """A progress display that calls back: `at_step(global_step)`, `at_epoch()`."""

    def __init__(self) -> None:
        self.done = 0
        self.at_step = self.at_epoch = lambda *_: None

    def step(self, *_: Any, **__: Any) -> None:
        self.done += 1
        self.at_step(self.done)

    def metrics(self, *_: Any) -> None:
        pass

    def epoch(self, *_: Any) -> None:
        self.at_epoch()


class Prepared(ERM):
    """Two epochs in which nothing is to be evaluated, then the usual ones."""

    def stages(self) -> list[Stage]:
        return [Stage("prepare", 2, evaluated=False), Stage("train", EPOCHS)]


METHODS = {
    "erm": ERM,
    "elr": ELR,
    "crosssplit": partial(CrossSplit, warmup={"epochs": 1}),
    "prepared": Prepared,
    "jtt": JTT,
}


def session(name: str, folder: Path, rows: list | None = None, learner: dict | None = None, **settings) -> Session:
    method: Method = METHODS[name]()
    options = Options(cosine_to=1e-3, learner=learner or {})
    method.build(make_context(make_data(train=104, test=20), epochs=EPOCHS, batch_size=16, options=options))
    trackers = Trackers([] if rows is None else rows)
    created = Session(
        method=method,
        data=method.context.data,
        runtime=RUNTIME,
        trackers=cast(Any, trackers),
        progress=cast(Any, Hooks()),
        checkpoints=Checkpoints(folder),
        settings=LoopSettings(**{"log_every": 2, "checkpoint_seconds": None, **settings}),
        stop=StopFlag(),
        identity={},
    )
    state, _ = created.checkpoints.load()
    if state is not None:
        restore(created, state)
        cast(Any, created.progress).done = created.cursor.global_step
    return created


def run(one: Session, stop_at: int | None = None) -> str | None:
    """Fit; a "signal" arrives while step `stop_at` (counted from 1) is done."""

    def arrive(step: int) -> None:
        if step == stop_at:
            one.stop.name = "SIGTERM"

    cast(Any, one.progress).at_step = arrive
    return fit(one)


def rows_of(one: Session) -> list[dict[str, Any]]:
    return cast(Any, one.trackers).rows


def assert_same_end(first: Session, second: Session) -> None:
    assert_equal(snapshot(first.method), snapshot(second.method))
    assert first.selection.results() == second.selection.results()
    assert first.final == second.final
    assert rows_of(first) == rows_of(second)
    cursors = [{**vars(one.cursor), "seconds": 0} for one in (first, second)]
    assert cursors[0] == cursors[1]


CASES = {
    "plain": {},
    "accumulate and average": {"learner": {"accumulate": 3, "ema_decay": 0.9}},
    "every second evaluation": {"evaluate_every": 2},
    "cut short in mid-epoch": {"max_steps": 9},
    "cut short at an epoch's end": {"max_steps": 14},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["erm", "elr", "crosssplit"])
def test_a_signal_at_any_step_changes_nothing(tmp_path, name, case):
    whole = session(name, tmp_path / "whole", **CASES[case])
    assert run(whole) is None
    total = whole.cursor.global_step
    ends = {row["step"] for row in rows_of(whole) if row["split"] == "epoch"}
    for stop in sorted(ends | set(range(1, total + 1, 1 if (name, case) == ("erm", "plain") else 5))):
        rows: list[dict[str, Any]] = []
        first = session(name, tmp_path / str(stop), rows, **CASES[case])
        signal = run(first, stop)
        again = session(name, tmp_path / str(stop), rows, **CASES[case])
        if signal is None:  # only between the last accumulated gradients is it too late to stop
            assert "learner" in CASES[case]
        elif "learner" not in CASES[case]:
            assert first.cursor.global_step == stop
        assert run(again) is None
        assert_same_end(whole, again if signal is not None else first)


def test_a_signal_during_evaluation_stops_before_the_next_step(tmp_path):
    whole, broken = session("erm", tmp_path / "whole"), session("erm", tmp_path / "broken", rows := [])
    run(whole)

    def arrive() -> None:
        broken.stop.name = "SIGUSR1"

    cast(Any, broken.progress).at_epoch = arrive
    assert fit(broken) == "SIGUSR1"
    assert (broken.cursor.epoch, broken.cursor.step, broken.cursor.global_step) == (1, 0, 7)
    again = session("erm", tmp_path / "broken", rows)
    assert run(again) is None
    assert_same_end(whole, again)


def test_checkpoints_by_step_are_written_at_the_end_of_an_epoch_too(tmp_path):
    one = session("erm", tmp_path, checkpoint_steps=7)  # an epoch has 7 steps
    saved = []
    original = one.checkpoints.save
    one.checkpoints.save = lambda state: (saved.append(state["cursor"]["global_step"]), original(state))[1]
    run(one)
    assert saved == [7, 14, 21, 21]


def test_a_finished_debugging_run_does_no_further_step(tmp_path):
    for max_steps in (5, 7, 10):
        first = session("erm", tmp_path / str(max_steps), max_steps=max_steps)
        assert run(first) is None  # and the process dies before it writes its results
        again = session("erm", tmp_path / str(max_steps), max_steps=max_steps)
        assert run(again) is None
        assert again.cursor.global_step == max_steps
        assert rows_of(again) == []
        assert again.selection.results() == first.selection.results()


def test_selected_epochs_are_counted_over_all_stages(tmp_path):
    one = session("crosssplit", tmp_path)
    run(one)
    assert one.selection.results()["last"]["epoch"] == EPOCHS - 1


def test_an_update_that_breaks_the_weights_is_seen_before_they_are_saved(tmp_path, monkeypatch):
    one = session("erm", tmp_path, log_every=1000, checkpoint_steps=1)
    original = Learner.step

    def breaking(self, loss):
        original(self, loss)
        if self.updates == 5:
            next(self.network.parameters()).data[0] = float("inf")

    monkeypatch.setattr(Learner, "step", breaking)
    with pytest.raises(NumericalError, match="weights of network became NaN or infinite by global step 4"):
        run(one)
    state, warnings = Checkpoints(tmp_path).load()
    assert state is not None
    assert warnings == []
    assert state["cursor"]["global_step"] == 4
    assert all(value.isfinite().all() for value in state["learners"]["network"]["network"].values())


def test_the_true_noise_rate_is_logged_with_every_epoch(tmp_path):
    one = session("erm", tmp_path)
    run(one)
    rates = [row["diagnostics/noise_rate"] for row in rows_of(one) if row["split"] == "epoch"]
    assert rates == [one.data.true_noise_rate] * EPOCHS
    assert 0.3 < rates[0] < 0.5


def test_stages_without_evaluation_are_neither_measured_nor_selected(tmp_path):
    one = session("prepared", tmp_path, evaluate_every=2)
    run(one)
    measured = {(row["stage"], row["epoch"]) for row in rows_of(one) if "test/accuracy" in row}
    assert measured == {("train", 1), ("train", 2)}
    assert {row["stage"] for row in rows_of(one) if row["split"] == "epoch"} == {"prepare", "train"}
    assert one.selection.results()["last"]["epoch"] == 4
    cut = session("prepared", tmp_path / "cut", max_steps=9)  # in the second epoch of the first stage
    run(cut)
    assert cut.selection.results() == {}
    assert "test/accuracy" not in cut.final
    assert cut.cursor.global_step == 9


def test_stages_advance_the_learners_they_train_and_rules_keep_those_that_predict(tmp_path):
    one = session("jtt", tmp_path)
    kept: dict[str, Any] = {}
    cast(Any, one.progress).at_epoch = lambda *_: kept.update(one.selection.snapshots)
    assert run(one) is None
    learners = one.method.learners
    assert {name: learner.epochs for name, learner in learners.items()} == {"identification": 1, "network": EPOCHS}
    for row in rows_of(one):
        rates = {name for name in row if name.startswith("train/lr/")}
        if row["split"] == "train":
            assert rates == {"train/lr/identification" if row["stage"] == "identify" else "train/lr/network"}
    assert set(kept) == {"best_test"}
    assert set(kept["best_test"]) == {"network"}
