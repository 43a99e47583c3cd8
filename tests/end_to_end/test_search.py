"""Sweepers that search: they are told the metric that is to be optimised, and never the exit code of a run."""

import re
import sqlite3
import sys
import types
from pathlib import Path

import pytest
import yaml

from robustlab.config.compose import compose
from robustlab.config.run_names import run_name
from robustlab.core.errors import DataError
from robustlab.train import main
from tests.end_to_end.harness import run_folder, train

pytestmark = pytest.mark.filterwarnings("ignore")  # Hydra's plugin needs optuna 2, which uses what others deprecate

OPTUNA = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.n_jobs=1"]
MAXIMIZE = [*OPTUNA, "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=2"]
LR = "optimizer.lr=interval(0.01,0.1)"
TEST = "optimized_metric.name=test/accuracy"
HAS_VAL = "dataset.val_fraction=0.1"

PLANTED = '''
"""A method whose score has its best at 0.3, and fails beyond 0.9."""
from robustlab.core.errors import DataError
from robustlab.methods.erm import ERM


class Planted(ERM):
    def __init__(self, *, at: float):
        super().__init__()
        self.at = at

    def end_epoch(self, stage, epoch):
        if self.at > 0.9:
            raise DataError("beyond 0.9")
        return {"diagnostics/score": 1 - (self.at - 0.3) ** 2}
'''


@pytest.fixture
def planted(tmp_path, monkeypatch) -> list[str]:
    """Arguments of `train` for the method with a planted best value."""
    (tmp_path / "planted_method.py").write_text(PLANTED)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "planted.yaml").write_text(
        "name: planted\n_target_: planted_method.Planted\nat: 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    options = [
        "method=planted",
        "dataset=digits",
        "noise=none",
        "trainer.max_steps=1",
        f"paths.output_dir={tmp_path}/outputs",
    ]
    return ["--config-dir", str(tmp_path / "conf"), *options]


@pytest.fixture
def engine(monkeypatch, tmp_path) -> types.ModuleType:
    """A stub in the place of the engine, whose runs end as `answers` says for a learning rate."""
    stub = types.ModuleType("robustlab.engine.run")
    stub.started = []  # type: ignore[attr-defined]
    stub.answer = lambda cfg: 0.5  # type: ignore[attr-defined]

    def run(cfg, overrides, **_) -> int:
        stub.started.append(cfg.optimizer.lr)  # type: ignore[attr-defined]
        value = stub.answer(cfg)  # type: ignore[attr-defined]
        folder = Path(cfg.paths.run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(f'{{"finished": true, "final": {{"test/accuracy": {value}}}}}')
        return 0

    stub.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "robustlab.engine.run", stub)
    monkeypatch.chdir(tmp_path)
    return stub


WRONG = {
    "no metric": (
        [*OPTUNA, LR],
        "OptunaSweeper searches by a number that each run returns, but optimized_metric names none",
    ),
    "metric set to null": ([*OPTUNA, LR, "optimized_metric=null"], "optimized_metric names none"),
    "other direction": (
        [*OPTUNA, LR, TEST],
        "but the sweeper is set to minimize; add hydra.sweeper.direction=maximize",
    ),
    "other mode": (
        [*MAXIMIZE, LR, TEST, "optimized_metric.mode=min"],
        "set to maximize; add hydra.sweeper.direction=minimize",
    ),
    "two directions": (
        [*OPTUNA, LR, TEST, "hydra.sweeper.direction=[maximize,minimize]"],
        "optimized_metric is one number, but the sweeper expects several",
    ),
    "no such direction": ([*OPTUNA, LR, TEST, "hydra.sweeper.direction=max"], "expected one of maximize, minimize"),
    "no such mode": (
        [*MAXIMIZE, LR, TEST, "optimized_metric.mode=best"],
        "optimized_metric.mode: expected one of max, min",
    ),
    "metric as a word": ([*MAXIMIZE, LR, "optimized_metric=val/accuracy"], "expected a group with the keys name, mode"),
    "misspelt metric": ([*MAXIMIZE, LR, HAS_VAL, "optimized_metric.name=val/acuracy"], "did you mean 'val/accuracy'?"),
    "metric without a split": ([*MAXIMIZE, LR, "optimized_metric.name=accuracy"], "did you mean 'val/accuracy'?"),
    "misspelt split": (
        [*MAXIMIZE, LR, "optimized_metric.name=tst/accuracy"],
        "has no split 'tst'; did you mean 'test'?",
    ),
    "no validation split": ([*MAXIMIZE, LR, "optimized_metric.name=val/accuracy"], "set dataset.val_fraction"),
    "misspelt key that is searched": ([*MAXIMIZE, TEST, "optimizer.lrr=interval(0.1,1)"], "did you mean 'lr'?"),
    "end of an interval": ([*MAXIMIZE, TEST, "optimizer.lr=interval(-1,1)"], "got -1.0 (in the point"),
    "one choice of several": ([*MAXIMIZE, TEST, LR, "method=erm,emr"], "did you mean 'erm'? (in the point"),
    "empty interval": ([*MAXIMIZE, TEST, "optimizer.lr=interval(1,0.1)"], "must be smaller than"),
    "number of trials": ([*MAXIMIZE, TEST, LR, "hydra.sweeper.n_trials=x"], "could not be converted to Integer"),
    "no such storage": ([*MAXIMIZE, TEST, LR, "hydra.sweeper.storage=nowhere"], "Could not parse"),
    "interval without a search": (
        ["-m", LR],
        "an interval needs a search sweeper, such as -m hydra/sweeper=optuna",
    ),
    "interval without -m": (
        ["optimizer.lr=interval(0.01,0.1)"],
        "search sweeper, such as -m hydra/sweeper=optuna; list",
    ),
    "metric of a single run": (["optimized_metric.name=tst/accuracy"], "did you mean 'test'?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_before_anything(name, engine, capsys, tmp_path):
    arguments, expected = WRONG[name]
    assert main(arguments) == 2
    written = capsys.readouterr().err
    assert expected in written
    assert "Traceback" not in written
    assert engine.started == []
    assert list(tmp_path.iterdir()) == []


def test_optuna_maximizes_the_metric_and_not_the_exit_code(engine, capsys, tmp_path):
    engine.answer = lambda cfg: 1 - abs(cfg.optimizer.lr - 0.07)
    assert main([*MAXIMIZE, "hydra.sweeper.n_trials=15", LR, TEST, "method=erm"]) == 0
    found = yaml.safe_load(next(tmp_path.glob("outputs/sweeps/*/optimization_results.yaml")).read_text())
    best = min(engine.started, key=lambda lr: abs(lr - 0.07))
    assert found["best_params"] == {"optimizer.lr": best}
    assert found["best_value"] == pytest.approx(1 - abs(best - 0.07))
    out = capsys.readouterr()
    assert re.search(rf"^best test/accuracy \(max\): .*optimizer.lr={best}", out.out, re.MULTILINE)
    assert "warning: optimized_metric.name=test/accuracy selects on test data" in out.err


def test_optuna_minimizes_when_both_say_so(engine, tmp_path):
    engine.answer = lambda cfg: abs(cfg.optimizer.lr - 0.07)
    options = ["hydra.sweeper.n_trials=10", "optimized_metric.mode=min", "method=erm"]
    assert main([*OPTUNA, *options, LR, TEST]) == 0
    found = yaml.safe_load(next(tmp_path.glob("outputs/sweeps/*/optimization_results.yaml")).read_text())
    assert found["best_params"]["optimizer.lr"] == min(engine.started, key=lambda lr: abs(lr - 0.07))


def test_a_search_that_is_stored_goes_on_where_it_stopped(engine, tmp_path):
    engine.answer = lambda cfg: 1 - abs(cfg.optimizer.lr - 0.07)
    stored = ["hydra.sweeper.storage=sqlite:///search.db", "hydra.sweeper.study_name=lr", "method=erm", LR, TEST]
    assert main([*MAXIMIZE, "hydra.sweeper.n_trials=4", *stored]) == 0
    first = list(engine.started)
    assert len(first) == 4
    assert main([*MAXIMIZE, "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=2", *stored]) == 0
    assert len(engine.started) == 7, "n_trials counts the trials that are added"
    with sqlite3.connect(tmp_path / "search.db") as database:
        values = [row[0] for row in database.execute("select value from trial_values")]
    assert sorted(values) == pytest.approx(sorted(1 - abs(lr - 0.07) for lr in engine.started))
    found = [yaml.safe_load(path.read_text()) for path in tmp_path.glob("outputs/sweeps/*/optimization_results.yaml")]
    assert max(one["best_value"] for one in found) == pytest.approx(max(values))


def test_a_sweeper_that_fails_without_a_message_is_quoted(engine, capsys, monkeypatch):
    import optuna

    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(optuna, "create_study", fail)
    assert main([*MAXIMIZE, LR, TEST, "method=erm"]) == 2
    written = capsys.readouterr().err
    assert re.search(r"OptunaSweeper: AssertionError at .*test_search.py:\d+: raise AssertionError", written)


def fails_above(limit: float):
    def answer(cfg) -> float:
        if cfg.optimizer.lr > limit:
            raise DataError("too large")
        return cfg.optimizer.lr

    return answer


def test_a_failed_trial_counts_for_nothing_and_its_exit_code_reaches_the_user(engine, capsys, tmp_path):
    engine.answer = fails_above(0.06)
    command = [*MAXIMIZE, "hydra.sweeper.n_trials=8", "hydra.sweeper.max_failure_rate=1", LR, TEST, "method=erm"]
    assert main(command) == 3
    assert len(engine.started) == 8
    failed = [lr for lr in engine.started if lr > 0.06]
    assert 0 < len(failed) < 8, "the test needs trials of both kinds"
    found = yaml.safe_load(next(tmp_path.glob("outputs/sweeps/*/optimization_results.yaml")).read_text())
    assert found["best_value"] == max(lr for lr in engine.started if lr <= 0.06)
    assert f"{len(failed)} of 8 points failed" in capsys.readouterr().err


def test_when_all_trials_fail_the_exit_code_is_theirs(engine, capsys):
    engine.answer = fails_above(0)
    assert main([*MAXIMIZE, "hydra.sweeper.max_failure_rate=1", LR, TEST, "method=erm"]) == 3
    written = capsys.readouterr().err
    assert "2 of 2 points failed" in written
    assert "No trials are completed" not in written


def test_a_search_stops_at_a_failure_unless_it_may_go_on(engine):
    engine.answer = fails_above(0)
    assert main([*MAXIMIZE, "hydra.sweeper.n_trials=5", LR, TEST, "method=erm"]) == 3
    assert len(engine.started) == 1


def test_a_value_that_is_not_finite_is_no_value(engine, tmp_path):
    engine.answer = lambda cfg: "NaN" if cfg.optimizer.lr > 0.06 else cfg.optimizer.lr
    options = ["hydra.sweeper.n_trials=8", "hydra.sweeper.max_failure_rate=1", "method=erm"]
    assert main([*MAXIMIZE, *options, LR, TEST]) == 0
    found = yaml.safe_load(next(tmp_path.glob("outputs/sweeps/*/optimization_results.yaml")).read_text())
    assert found["best_value"] <= 0.06


def test_a_signal_ends_the_search(engine, tmp_path):
    engine.run = lambda cfg, overrides, **_: engine.started.append(cfg.optimizer.lr) or 85
    assert main([*MAXIMIZE, "hydra.sweeper.n_trials=5", LR, TEST, "method=erm"]) == 85
    assert len(engine.started) == 1


def test_a_metric_that_the_run_turns_out_not_to_measure(engine, capsys):
    assert main([*MAXIMIZE, LR, "optimized_metric.name=diagnostics/acuracy", "method=erm"]) == 2
    assert "this run does not measure 'diagnostics/acuracy'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [["optimized_metric.name=test/accuracy"], ["optimized_metric.mode=min"], ["optimized_metric=null"]]
)
def test_the_metric_is_not_part_of_what_a_run_is(change):
    assert run_name(compose(change)) == run_name(compose())


@pytest.mark.slow
def test_the_real_optuna_finds_a_planted_best_value_through_real_runs(planted, tmp_path):
    """Trials beyond 0.9 fail; the best of the others is near 0.3. One seed of the sampler, so the same trials."""
    search = [*MAXIMIZE, "hydra.sweeper.n_trials=14", "hydra.sweeper.max_failure_rate=1"]
    log = tmp_path / "log.txt"
    code = train([*planted, *search, "method.at=interval(0,1)", "optimized_metric.name=diagnostics/score"], log)
    text = log.read_text()
    found = yaml.safe_load(next(tmp_path.glob("outputs/sweeps/*/optimization_results.yaml")).read_text())
    assert abs(found["best_params"]["method.at"] - 0.3) < 0.1, text
    assert found["best_value"] == pytest.approx(1 - (found["best_params"]["method.at"] - 0.3) ** 2)
    assert code == (3 if "beyond 0.9" in text else 0)
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test/worst_group", "does not measure 'test/worst_group'"),
        ("test/accuracy_top5", "did you mean 'test/accuracy'?"),
        ("test/network1/accuracy", "did you mean 'test/accuracy'?"),
    ],
)
def test_a_metric_that_needs_other_data_is_refused_before_the_first_step(planted, tmp_path, name, expected):
    log = tmp_path / "log.txt"
    assert train([*planted, f"optimized_metric.name={name}"], log) == 2
    assert expected in log.read_text()
    assert not list(tmp_path.glob("outputs/*/*/results.json"))


def test_single_runs_measure_as_ever(planted, tmp_path):
    log = tmp_path / "log.txt"
    assert train([*planted, "optimized_metric.name=test/accuracy"], log) == 0, log.read_text()
    assert run_folder(tmp_path / "outputs")
