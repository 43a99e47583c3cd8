"""Sweeps on a real cluster: interrupted jobs go on to the same bits, alone, from a snapshot of the code."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from robustlab.launch.run_status import Status
from robustlab.launch.standing import is_done
from robustlab.launch.submission import read_outcome
from tests.end_to_end.harness import assert_same_run, train
from tests.slurm.cluster import (
    JOB,
    REPOSITORY,
    SMALL,
    call,
    jobs_cancelled,
    jobs_now,
    jobs_of,
    steps,
    submit,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LONG = ["trainer.epochs=90", "trainer.log_every=1", "method.surgery.every=40"]


@pytest.fixture(autouse=True)
def _no_job_is_left_behind(tmp_path):
    with jobs_cancelled(tmp_path):
        yield


def interrupt_twice(job: str, folders: list[Path], *, logs: Path) -> None:
    """Interrupt a job in mid-training as a time limit does, and once it trains again, by a requeue."""
    for restarts, action in enumerate((["scancel", "--signal=USR2"], ["scontrol", "requeue"])):
        after = max(map(steps, folders)) + 40  # beyond what an earlier start did: each start does steps
        wait_until(lambda: min(map(steps, folders)) > after, f"step {after} of {job}", logs)  # noqa: B023 called now
        subprocess.run([*action, job], check=True)
        wait_until(lambda: restarted(job, restarts), f"requeue {restarts + 1} of {job}", logs)  # noqa: B023


@pytest.mark.fault("F6")
def test_packed_runs_that_are_interrupted_twice_end_with_the_bits_of_runs_that_are_not(tmp_path):
    """Two elements of an array with two runs each. Once each gets the signal of a time limit, once it is requeued."""
    command = ["method=demp", "method.reg.peak=0.01", *LONG, "method.reg.span=0.5,0.7", "seed=0,1"]
    outputs, logs = tmp_path / "cluster", tmp_path
    submission = submit(outputs, *command, "hydra.launcher.pack=2", "hydra.launcher.cpus_per_task=1")
    by_job: dict[str, list[Path]] = {}
    for point in submission.points:
        by_job.setdefault(point.job, []).append(Path(point.run_dir))
    assert [len(folders) for folders in by_job.values()] == [2, 2]

    with ThreadPoolExecutor() as pool:  # side by side, so that no job ends while another is waited for
        list(pool.map(partial(interrupt_twice, logs=logs), by_job, by_job.values()))
    wait_until(lambda: all(is_done(Path(point.run_dir)) for point in submission.points), "the end", logs)

    for point in submission.points:
        assert read_log(submission.folder, point.number).count("resuming in") == 2
        whole = tmp_path / "whole" / str(point.number)
        overrides = [text for text in point.overrides if not text.startswith("paths.output_dir=")]
        assert train([*overrides, f"paths.output_dir={whole}"], tmp_path / "whole.txt") == 0
        run_dir = Path(point.run_dir)
        assert_same_run(whole / run_dir.relative_to(outputs), run_dir)


def restarted(job: str, restarts: int) -> bool:
    """Whether a job has been requeued once more, and no other element of its array has been on its account."""
    return job in jobs_now() and jobs_now()[job].restarts > restarts


def read_log(sweep: Path, number: int) -> str:
    return (sweep / "points" / f"{number:04d}.log").read_text()


@pytest.mark.fault("F6")
def test_a_cancelled_job_does_not_come_back_and_a_requeued_element_leaves_the_others_alone(tmp_path):
    outputs = tmp_path / "cluster"
    submission = submit(outputs, "method=erm", "trainer.epochs=100000", "trainer.log_every=1", "seed=0,1")
    first, second = submission.points
    wait_until(lambda: min(steps(Path(point.run_dir)) for point in submission.points) > 5, "both began", tmp_path)
    subprocess.run(["scancel", "--signal=USR2", second.job], check=True)
    wait_until(lambda: restarted(second.job, 0), "the requeue of one element", tmp_path)
    assert jobs_now()[first.job].restarts == 0
    subprocess.run(["scancel", first.job], check=True)
    wait_until(lambda: first.job not in jobs_now(), "the end of the cancelled job", tmp_path)
    wait_until(lambda: read_outcome(submission.folder, first.number), "the outcome", tmp_path)
    assert read_outcome(submission.folder, first.number)["exit_code"] == 85
    status = Status(outputs)
    assert status.standings[Path(first.run_dir)].state == "stopped"
    assert status.cancel() == [second.job]
    wait_until(lambda: not {first.job, second.job} & set(jobs_now()), "an empty queue", tmp_path)


@pytest.mark.fault("F23")
def test_a_job_runs_the_code_and_the_settings_of_when_it_was_submitted(tmp_path):
    tree = tmp_path / "tree"
    for name in ("src", "conf", "scripts"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    outputs = tmp_path / "cluster"
    arguments = ["method=erm", "trainer=debug", "trainer.epochs=1", "tracker=local", f"paths.output_dir={outputs}"]
    hold = "+hydra.launcher.additional_parameters.hold=true"
    live = {"PYTHONPATH": str(tree / "src")}
    script = str(tree / "scripts" / "submit.py")
    done = call(sys.executable, script, *arguments, hold, "hydra.launcher.cpus_per_task=1", cwd=tree, **live)
    assert done.returncode == 0, done.stderr
    (job,) = jobs_of(outputs)

    (tree / "conf" / "optimizer" / "sgd.yaml").write_text("this is: no optimizer\n")
    (tree / "src" / "robustlab" / "train.py").write_text("raise SystemExit('the live tree')\n")
    live_run = call(sys.executable, "-m", "robustlab.train", *arguments, cwd=tree, **live)
    assert "the live tree" in live_run.stderr, "the edit must break what runs from the live tree"
    subprocess.run(["scontrol", "release", job], check=True)
    wait_until(lambda: list(outputs.glob("erm-*/seed0/results.json")), "the run from the snapshot", tmp_path)


def test_a_run_that_fails_is_not_requeued_and_can_be_submitted_again(tmp_path):
    outputs, data = tmp_path / "cluster", tmp_path / "data"
    submission = submit(outputs, "method=erm", "dataset=cifar10", "trainer.max_steps=2", f"paths.data_dir={data}")
    (point,) = submission.points
    wait_until(lambda: read_outcome(submission.folder, 0), "the end", tmp_path)
    wait_until(lambda: point.job not in jobs_now(), "the end of the job", tmp_path)
    standing = Status(outputs).standings[Path(point.run_dir)]
    assert (standing.state, standing.note.partition(":")[0]) == ("failed", "exit code 2")
    assert str(data) in standing.note, "the last line of the log says what is missing"
    (again,) = Status(outputs).resubmit()
    assert again.points[0].run_dir == point.run_dir
    assert Status(outputs).standings[Path(point.run_dir)].job == again.points[0].job


def test_train_m_waits_for_its_jobs_and_tells_how_each_ended(tmp_path):
    arguments = [*SMALL, *JOB, f"paths.output_dir={tmp_path}", f"paths.data_dir={tmp_path}/none", "method=erm"]
    points = ["dataset=digits,cifar10", "trainer.max_steps=2", "hydra/launcher=slurm"]
    done = call(str(Path(sys.executable).parent / "train"), "-m", *arguments, *points)
    assert done.returncode == 2, done.stderr
    first, second = sorted(line.partition("] ")[2] for line in done.stdout.splitlines() if line.startswith("["))
    assert first.startswith("dataset=cifar10: failed, exit code 2: train: cifar10 is not in")
    assert second == "dataset=digits: done"
    assert f"robustlab status {tmp_path} --cancel" in done.stderr


def where(run_dir: Path, outputs: Path) -> tuple[str, str]:
    """Return what `robustlab status` knows of a run: its state and the note."""
    standing = Status(outputs).standings[run_dir]
    return standing.state, standing.note


def test_a_finished_run_that_a_job_extends_is_done_only_when_the_job_has_extended_it(tmp_path):
    outputs = tmp_path / "cluster"
    run_dir = outputs / "x"
    command = ["method=erm", f"paths.run_dir={run_dir}", "trainer.log_every=1"]
    own = [*SMALL, *command, f"paths.output_dir={outputs}", "trainer.epochs=2"]
    assert train(own, tmp_path / "short.txt") == 0
    assert where(run_dir, outputs) == ("done", "")
    hold = "+hydra.launcher.additional_parameters.hold=true"
    submission = submit(outputs, *command, "trainer.epochs=60", "resume=force", hold)
    (point,) = submission.points
    assert where(run_dir, outputs) == ("queued", f"job {point.job}: JobHeldUser")
    subprocess.run(["scontrol", "release", point.job], check=True)
    wait_until(lambda: where(run_dir, outputs)[0] != "queued", "the start", tmp_path)
    assert where(run_dir, outputs)[0] == "running"
    wait_until(lambda: steps(run_dir) > 60, "more steps than the short run had", tmp_path)
    subprocess.run(["scontrol", "requeue", point.job], check=True)
    wait_until(lambda: restarted(point.job, 0), "the requeue", tmp_path)
    assert where(run_dir, outputs)[0] in ("requeued", "running")
    wait_until(lambda: where(run_dir, outputs)[0] not in ("requeued", "running"), "the end", tmp_path)
    assert where(run_dir, outputs) == ("done", "")
    results = json.loads((run_dir / "results.json").read_text())
    assert (results["epochs"], results["extended_from"]) == (60, [2])


def test_a_run_that_a_job_cannot_extend_has_failed_and_keeps_its_results(tmp_path):
    outputs = tmp_path / "cluster"
    run_dir = outputs / "x"
    command = ["method=jtt", f"paths.run_dir={run_dir}"]
    own = [*SMALL, *command, f"paths.output_dir={outputs}", "trainer.epochs=2"]
    assert train(own, tmp_path / "short.txt") == 0
    before = (run_dir / "results.json").read_bytes()
    (point,) = submit(outputs, *command, "trainer.epochs=3", "resume=force").points
    wait_until(lambda: where(run_dir, outputs)[0] not in ("queued", "running"), "the end", tmp_path)
    wait_until(lambda: point.job not in jobs_now(), "the end of the job", tmp_path)
    state, note = where(run_dir, outputs)
    assert (state, "cannot be extended: it trains in 2 stages" in note) == ("failed", True), note
    assert (run_dir / "results.json").read_bytes() == before


def test_a_requeued_job_with_resume_false_starts_anew_once(tmp_path):
    outputs = tmp_path / "cluster"
    run_dir = outputs / "x"
    command = ["method=erm", f"paths.run_dir={run_dir}", "trainer.log_every=1", "trainer.epochs=60"]
    assert train([*SMALL, *command, f"paths.output_dir={outputs}"], tmp_path / "first.txt") == 0
    (point,) = submit(outputs, *command, "resume=false").points
    assert where(run_dir, outputs)[0] in ("queued", "running")
    wait_until(lambda: 20 < steps(run_dir) < 300, "the new run trains", tmp_path)
    subprocess.run(["scancel", "--signal=USR2", point.job], check=True)
    wait_until(lambda: restarted(point.job, 0), "the requeue", tmp_path)
    wait_until(lambda: where(run_dir, outputs)[0] == "done", "the end", tmp_path)
    assert sorted(path.name for path in outputs.glob("x*")) == ["x", "x.old1"]
    assert_same_run(outputs / "x", outputs / "x.old1")
