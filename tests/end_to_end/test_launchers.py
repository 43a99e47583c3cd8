"""Sweeps whose points run in other processes: the highest exit code and the names of what failed reach the user."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from robustlab.core.errors import DataError
from robustlab.sweeps.outcomes import PointOutcome
from robustlab.train import main

SWEEP = ["-m", "method=erm", "seed=0,1,2"]


class Elsewhere(Launcher):
    """Stands in for a launcher whose jobs run in other processes: gives back what `answer` says for a job's number."""

    def __init__(self, answer: Callable[[int], JobReturn]) -> None:
        self.answer = answer

    def setup(self, **_) -> None: ...

    def launch(self, job_overrides, initial_job_idx):
        return [self.answer(number) for number in range(initial_job_idx, initial_job_idx + len(job_overrides))]


def returned(value: object, status: JobStatus = JobStatus.COMPLETED) -> JobReturn:
    return JobReturn(overrides=["x"], status=status, _return_value=value)


@pytest.fixture
def sweep(monkeypatch, tmp_path) -> Callable[[Callable[[int], JobReturn]], int]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "robustlab.engine.run", ModuleType("robustlab.engine.run"))

    def run(answer: Callable[[int], JobReturn]) -> int:
        monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: Elsewhere(answer))
        return main(SWEEP)

    return run


def test_points_that_failed_elsewhere_are_named_with_their_message(sweep, capsys):
    codes = [0, 3, 5]
    assert sweep(lambda n: returned(PointOutcome(codes[n], "outputs/x", 2.0, message="train: row 3" if n else ""))) == 5
    written = capsys.readouterr()
    assert written.out.splitlines() == [
        "[1/3] seed=0: finished in 2 s, outputs/x",
        "[2/3] seed=1: failed (exit code 3) in 2 s, outputs/x",
        "[3/3] seed=2: failed (exit code 5) in 2 s, outputs/x",
    ]
    assert written.err.count("train: row 3") == 2
    assert "2 of 3 points failed:\n  - [2/3] seed=1: exit code 3\n  - [3/3] seed=2: exit code 5\n" in written.err


@pytest.mark.parametrize(
    ("job", "code", "expected"),
    [
        (returned(DataError("row 3"), JobStatus.FAILED), 3, "train: row 3"),
        (
            returned(ZeroDivisionError("bug"), JobStatus.FAILED),
            1,
            "failed outside the run itself: ZeroDivisionError: bug",
        ),
        (returned(None, JobStatus.UNKNOWN), 1, "failed outside the run itself: it returned None"),
    ],
)
def test_jobs_that_failed_before_the_run_itself(sweep, capsys, job, code, expected):
    assert sweep(lambda number: job if number == 1 else returned(PointOutcome(0))) == code
    written = capsys.readouterr().err
    assert expected in written
    assert "1 of 3 points failed:\n  - [2/3] seed=1" in written


def test_all_failed(sweep, capsys):
    assert sweep(lambda _: returned(DataError("row 3"), JobStatus.FAILED)) == 3
    assert "3 of 3 points failed" in capsys.readouterr().err


def test_a_launcher_that_loses_its_jobs(sweep, capsys):
    def killed(number: int) -> JobReturn:
        raise RuntimeError("a worker was killed")

    assert sweep(killed) == 4
    written = capsys.readouterr().err
    assert "the launcher failed while running 3 point(s): RuntimeError: a worker was killed" in written
    assert "Traceback" not in written


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_real_launchers(launcher, tmp_path):
    """One point of two fails when it builds its batches; a method of the user's own lies beside the command."""
    (tmp_path / "own_method.py").write_text(
        "from robustlab.core.errors import DataError\nfrom robustlab.methods.erm import ERM\n\n\n"
        "class Own(ERM):\n    def build(self, context):\n        if context.seed == 1:\n"
        "            raise DataError('seed 1 is refused')\n        super().build(context)\n"
    )
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "own.yaml").write_text("name: own\n_target_: own_method.Own\n")
    quick = ["trainer.max_steps=1", "trainer.threads=1", "trainer.device=cpu", "tracker=local", "compare=null"]
    command = [Path(sys.executable).with_name("train"), "--config-dir", "conf", f"hydra/launcher={launcher}"]
    done = subprocess.run(
        [*command, "-m", "method=own", "dataset=digits", "noise=none", "seed=0,1", *quick],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "[1/2] seed=0: finished in" in done.stdout
    assert "[2/2] seed=1: failed (exit code 3)" in done.stdout
    assert done.stderr.count("train: seed 1 is refused") == 1
    assert "1 of 2 points failed:\n  - [2/2] seed=1: exit code 3" in done.stderr
    assert "Traceback" not in done.stderr
