"""The status of runs, from made-up folders, records and queues."""

import fcntl
import json
import os
import socket
import sys
from dataclasses import asdict

import pytest

from robustlab.launch.run_status import Status
from robustlab.launch.slurm_queue import QueuedJob
from robustlab.launch.standing import Overview
from robustlab.launch.submission import Submission, SubmittedPoint, log_path, outcome_path
from tests.launch.many_runs import make_runs


def submission(outputs, jobs, *, when="2026-01-01T00:00:00+0000", name="first"):
    """A record with one point for each job; run folders run0, run1, ..."""
    folder = outputs / "sweeps" / name
    (folder / "points").mkdir(parents=True)
    points = [SubmittedPoint(n, [f"seed={n}"], str(outputs / f"run{n}" / "seed0"), job) for n, job in enumerate(jobs)]
    made = Submission(folder, when, str(outputs), [], [], points)
    made.write()
    return made


def in_queue(monkeypatch, *jobs):
    monkeypatch.setattr("robustlab.launch.standing.queue", lambda: {job.id: job for job in jobs})


def end(made, number, code, *lines):
    outcome_path(made.folder, number).write_text(json.dumps({"exit_code": code}))
    log_path(made.folder, number).write_text("\n".join(lines) + "\n\n")


def standing(outputs, number):
    found = Overview(outputs).standing(outputs / f"run{number}" / "seed0")
    return found.state, found.note


def test_every_state_is_told_apart(tmp_path, monkeypatch):
    made = submission(tmp_path, [f"9_{number}" for number in range(8)])
    in_queue(
        monkeypatch,
        QueuedJob("9_0", "PD", 0, "Resources"),
        QueuedJob("9_1", "PD", 3, "BeginTime"),
        QueuedJob("9_2", "R", 1, "None"),
        QueuedJob("9_6", "R", 0, "None"),
        QueuedJob("9_7", "PD", 1, "None"),
    )
    end(made, 1, 85, "stopped by SIGUSR2")
    end(made, 3, 5, "train epoch 1/2", "train: a loss became NaN")
    end(made, 4, 85, "stopped by SIGTERM")
    log_path(made.folder, 5).write_text("train epoch 1/2\n")
    assert standing(tmp_path, 0) == ("queued", "job 9_0: Resources")
    assert standing(tmp_path, 1) == ("requeued", "job 9_1, restart 3: BeginTime")
    assert standing(tmp_path, 2) == ("running", "job 9_2")
    log_path(made.folder, 6).write_text("train epoch 1/9\ntrain epoch 2/9  ETA 4 s\n")
    assert standing(tmp_path, 6) == ("running", "job 9_6: train epoch 2/9  ETA 4 s")
    assert standing(tmp_path, 7) == ("requeued", "job 9_7, restart 1")
    assert standing(tmp_path, 3) == ("failed", "exit code 5: train: a loss became NaN")
    assert standing(tmp_path, 4) == ("stopped", "job 9_4 was not requeued")
    assert standing(tmp_path, 5) == ("failed", "job 9_5 ended without a message: train epoch 1/2")


def test_a_point_is_called_by_what_tells_it_from_the_others(tmp_path):
    points = [SubmittedPoint(n, ["method=erm", f"seed={n}"], "", "9") for n in range(2)]
    several = Submission(tmp_path, "", "", [], [], points)
    assert [several.label(point) for point in points] == ["seed=0", "seed=1"]
    assert Submission(tmp_path, "", "", [], [], points[:1]).label(points[0]) == "method=erm seed=0"


def test_results_count_more_than_what_a_job_said(tmp_path, monkeypatch):
    made = submission(tmp_path, ["9"])
    in_queue(monkeypatch)
    end(made, 0, 4, "train: disk full")
    folder = tmp_path / "run0" / "seed0"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text('{"finished": true}')
    assert standing(tmp_path, 0) == ("done", "")


def test_the_newest_submission_counts(tmp_path, monkeypatch):
    end(submission(tmp_path, ["9"], name="b"), 0, 2, "train: no such data")
    submission(tmp_path, ["10"], when="2026-01-02T00:00:00+0000", name="a")
    in_queue(monkeypatch, QueuedJob("10", "PD", 0, "Priority"))
    assert standing(tmp_path, 0) == ("queued", "job 10: Priority")


def test_without_slurm_a_job_without_an_outcome_is_not_called_failed(tmp_path, monkeypatch):
    submission(tmp_path, ["9"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert standing(tmp_path, 0) == ("stopped", "job 9; there is no SLURM here to ask")


def test_a_run_by_hand_runs_as_long_as_its_lock_is_held(tmp_path, monkeypatch):
    in_queue(monkeypatch)
    folder = tmp_path / "run0" / "seed0"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        assert standing(tmp_path, 0)[0] == "running"
    assert standing(tmp_path, 0)[0] == "killed"


HERE = f"process 4194304 on {socket.gethostname()}"  # no process has this number


def test_a_run_that_was_killed_before_it_wrote_anything_is_listed(tmp_path, monkeypatch):
    in_queue(monkeypatch)
    folder = tmp_path / "run0" / "seed0"
    folder.mkdir(parents=True)
    (folder / ".lock").write_text(HERE)
    assert {place: found.state for place, found in Status(tmp_path).standings.items()} == {folder: "killed"}


def left(outputs, *, lock=None, ending=None, owner=None, rows=()):
    """A run folder as a start left it."""
    folder = outputs / "run0" / "seed0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    if lock is not None:
        (folder / ".lock").write_text(lock)
    if ending is not None:
        whole = {"process": lock, "error": "", "message": "", "ended_at": "", **ending}
        (folder / "exit.json").write_text(json.dumps(whole))
    if owner is not None:
        (folder / ".owner").write_text(json.dumps(owner))
    if rows:
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


ROWS = [{"epoch": 0, "step": 10}, {"epoch": 2, "step": 30, "padding": "x" * 10_000}]
NAN = {
    "exit_code": 5,
    "message": "loss became nan in global step 31; the last good checkpoint is kept. Lower optimizer.lr",
}
NAN_NOTE = "exit code 5: loss became nan in global step 31; the last good checkpoint is kept"
OWNER = {"pid": 4194304, "host": socket.gethostname(), "boot": "b", "started": "1", "job": None, "restarts": None}
STARTS = {
    "NaN": ({"lock": HERE, "ending": NAN, "rows": ROWS}, "failed", NAN_NOTE),
    "a bug": (
        {"lock": HERE, "ending": {"exit_code": 1, "message": "TypeError: x\nmore"}},
        "failed", "exit code 1: TypeError: x",
    ),
    "a signal": (
        {"lock": HERE, "ending": {"exit_code": 85, "message": "stopped by SIGTERM"}, "rows": ROWS},
        "stopped", "stopped by SIGTERM, at epoch 3, step 30; the same command resumes it",
    ),
    "kill -9": (
        {"lock": HERE, "rows": ROWS},
        "killed", f"{HERE} vanished without a message: killed, or lost power, at epoch 3, step 30",
    ),
    "a stale lock": (
        {"lock": HERE, "owner": OWNER}, "killed",
        f"{HERE} vanished without a message: killed, or lost power; the next start takes over its stale lock",
    ),
    "elsewhere": (
        {"lock": "process 7 on node9"}, "unclear",
        "held by process 7 on node9, not visible from here: running, or killed",
    ),
    "no trace": ({}, "stopped", "no trace of how it ended"),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_what_a_start_left_tells_how_it_ended(tmp_path, monkeypatch, name):
    facts, state, note = STARTS[name]
    monkeypatch.setattr("robustlab.launch.standing.queue", lambda: None)
    left(tmp_path, **facts)
    assert standing(tmp_path, 0) == (state, note)
    assert list(Status(tmp_path).standings) == [tmp_path / "run0" / "seed0"]


def test_a_lock_that_is_a_file_is_held_while_its_process_lives(tmp_path, monkeypatch):
    from robustlab.engine.lock import Holder

    in_queue(monkeypatch)
    left(tmp_path, lock="", owner=asdict(Holder.this_process()))
    assert standing(tmp_path, 0) == ("running", f"process {os.getpid()} on {socket.gethostname()}")


def test_a_job_of_slurm_that_is_not_in_the_queue_was_killed(tmp_path, monkeypatch):
    in_queue(monkeypatch)
    left(tmp_path, lock="process 7 on node9, SLURM job 12")
    assert standing(tmp_path, 0)[0] == "killed"


def test_of_a_failed_point_the_runs_own_word_counts_more_than_the_last_line_of_its_log(tmp_path, monkeypatch):
    made = submission(tmp_path, ["9"])
    in_queue(monkeypatch)
    left(tmp_path, lock=HERE, ending=NAN)
    end(made, 0, 5, "train: loss became nan", "W&B is offline")
    assert standing(tmp_path, 0) == (
        "failed",
        NAN_NOTE,
    )
    end(made, 0, 4, "train: disk full")
    assert standing(tmp_path, 0) == ("failed", "exit code 4: train: disk full")


def test_a_failed_run_that_no_sweep_knows_is_not_submitted_again(tmp_path, monkeypatch):
    in_queue(monkeypatch)
    left(tmp_path, lock=HERE, ending=NAN)
    status = Status(tmp_path)
    assert status.has_failed
    assert status.resubmit() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/locks is Linux's")
def test_a_thousand_runs_are_counted(tmp_path, monkeypatch, capsys):
    from robustlab.core.console import make_console

    in_queue(monkeypatch)
    make_runs(tmp_path, 1000, failed=30)
    status = Status(tmp_path)
    status.print(make_console())
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert lines[1:3] == [["done", "970"], ["failed", "30"]]
    assert shown.count("train: data damaged") == 20
    assert "... and 10 more" in shown
    assert status.has_failed


def test_every_run_is_listed_when_asked(tmp_path, monkeypatch, capsys):
    from robustlab.core.console import make_console

    in_queue(monkeypatch)
    make_runs(tmp_path, 30, failed=30)
    Status(tmp_path).print(make_console(), at_most=None)
    assert capsys.readouterr().out.count("train: data damaged") == 30


def finished(outputs, when):
    """The results of a run that ended at a time."""
    folder = outputs / "run0" / "seed0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"finished": True, "finished_at": when}))


BEFORE, SUBMITTED, AFTER = (f"2026-01-01T{time}+0000" for time in ("09:00:00", "10:00:00", "11:00:00"))


def test_results_from_before_a_submission_do_not_pass_for_those_of_its_job(tmp_path, monkeypatch):
    """As where a finished run is to be extended (resume=force), or started over (resume=false)."""
    made = submission(tmp_path, ["9"], when=SUBMITTED)
    finished(tmp_path, BEFORE)
    in_queue(monkeypatch, QueuedJob("9", "PD", 0, "Resources"))
    assert standing(tmp_path, 0) == ("queued", "job 9: Resources")
    in_queue(monkeypatch, QueuedJob("9", "R", 0, "None"))
    assert standing(tmp_path, 0) == ("running", "job 9")
    in_queue(monkeypatch)
    assert standing(tmp_path, 0) == ("failed", "job 9 ended without a message: no output")
    end(made, 0, 2, "train: a run of 4 epochs cannot be extended")
    ending = {"process": "", "exit_code": 2, "error": "", "message": "of an earlier start", "ended_at": BEFORE}
    (tmp_path / "run0" / "seed0" / "exit.json").write_text(json.dumps(ending))
    assert standing(tmp_path, 0) == ("failed", "exit code 2: train: a run of 4 epochs cannot be extended")


def test_results_from_after_a_submission_count_whatever_the_queue_says(tmp_path, monkeypatch):
    submission(tmp_path, ["9"], when=SUBMITTED)
    finished(tmp_path, AFTER.replace("+0000", "+0030"))  # half past ten of Greenwich
    in_queue(monkeypatch, QueuedJob("9", "R", 0, "None"))
    assert standing(tmp_path, 0) == ("done", "")


def test_a_job_that_ended_well_is_done_though_its_node_s_clock_is_late(tmp_path, monkeypatch):
    made = submission(tmp_path, ["9"], when=SUBMITTED)
    in_queue(monkeypatch)
    end(made, 0, 0, "done")
    assert standing(tmp_path, 0)[0] == "failed"  # without results nothing is done
    finished(tmp_path, BEFORE)
    assert standing(tmp_path, 0) == ("done", "")


def test_the_command_of_a_run_that_was_started_anew_would_do_that_again(tmp_path, monkeypatch):
    in_queue(monkeypatch)
    left(tmp_path, lock=HERE, ending={"exit_code": 85, "message": "stopped by SIGINT"})
    overrides = tmp_path / "run0" / "seed0" / "overrides.yaml"
    overrides.write_text("- method=erm\n- resume=force\n")
    assert standing(tmp_path, 0)[1] == "stopped by SIGINT; the same command resumes it"
    overrides.write_text("- method=erm\n- resume=false\n")
    assert standing(tmp_path, 0)[1] == "stopped by SIGINT; the same command without resume=false resumes it"
