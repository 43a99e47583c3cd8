"""How a job handles exit codes and signals of its runs, with a stand-in for the training program."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from robustlab.core.stop_signals import STOP_SIGNALS
from robustlab.launch import job as job_module
from robustlab.launch.job import Pack
from robustlab.launch.submission import outcome_path, read_outcome

PROGRAM = """
import json, os, signal, sys, time
code, seconds, out = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
stopped = []
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda *_: stopped.append(1))
names = ("ROBUSTLAB_SWEEP", "SLURM_CPUS_PER_TASK", "CUDA_VISIBLE_DEVICES")
open(out, "a").write(json.dumps({name: os.environ.get(name) for name in names}) + "\\n")
end = time.monotonic() + seconds
while time.monotonic() < end and not stopped:
    time.sleep(0.01)
print("stopped" if stopped else "ended", flush=True)
sys.exit(85 if stopped else code)
"""


@pytest.fixture
def pack(tmp_path, monkeypatch):
    """A maker of packs whose runs are (exit code, seconds) of the stand-in."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (tmp_path / "points").mkdir()
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8", "CUDA_VISIBLE_DEVICES": "0,1"}.items():
        monkeypatch.setenv(name, value)
    real = subprocess.Popen

    def started(command, **options):
        assert command[:4] == [sys.executable, "-P", "-m", "robustlab.train"]
        return real([sys.executable, str(program), *command[4:]], **options)

    monkeypatch.setattr(job_module.subprocess, "Popen", started)

    def make(*runs):
        arguments = [(number, [*map(str, run), str(tmp_path / f"{number}.txt")]) for number, run in enumerate(runs)]
        return Pack(tmp_path, arguments)

    return make


@pytest.fixture(autouse=True)
def _no_signal_stays_behind():
    """After a signal a job holds all of them back, since it is about to end; the process of the tests goes on."""
    yield
    while signal.sigtimedwait(STOP_SIGNALS, 0):
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def requeued(monkeypatch, *, allowed=True) -> list[int]:
    """Stand in for SLURM and for submitit's handler; the list has the signals with which that was called."""
    calls: list[int] = []

    def handler(number, frame):
        calls.append(number)
        sys.exit(-1)

    monkeypatch.setattr(job_module, "may_requeue", lambda: allowed)
    monkeypatch.setattr(signal, "getsignal", lambda number: handler)
    return calls


def test_runs_go_side_by_side_each_with_its_share_of_the_machine(pack, tmp_path, monkeypatch):
    calls = requeued(monkeypatch)
    pack((0, 0), (0, 0), (0, 0), (0, 0))()
    seen = [json.loads((tmp_path / f"{number}.txt").read_text()) for number in range(4)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in seen] == ["0", "1", "0", "1"]
    assert {one["SLURM_CPUS_PER_TASK"] for one in seen} == {"2"}
    assert {one["ROBUSTLAB_SWEEP"] for one in seen} == {tmp_path.name}
    assert [read_outcome(tmp_path, number)["exit_code"] for number in range(4)] == [0, 0, 0, 0]
    assert calls == []


def test_a_single_run_has_the_whole_job(pack, tmp_path):
    pack((0, 0))()
    seen = json.loads((tmp_path / "0.txt").read_text())
    assert (seen["SLURM_CPUS_PER_TASK"], seen["CUDA_VISIBLE_DEVICES"]) == ("8", "0,1")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
@pytest.mark.fault("F6")
def test_one_signal_reaches_all_runs_and_the_job_is_requeued(pack, tmp_path, monkeypatch, number):
    calls = requeued(monkeypatch)
    both = [tmp_path / "0.txt", tmp_path / "1.txt"]

    def send():
        while not all(path.exists() for path in both):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(SystemExit):
        pack((0, 60), (0, 60))()
    sender.join()
    assert [read_outcome(tmp_path, n)["exit_code"] for n in (0, 1)] == [85, 85]
    assert calls == [signal.SIGUSR2]


def test_a_job_that_slurm_has_ended_is_left_alone(pack, monkeypatch):
    calls = requeued(monkeypatch, allowed=False)
    with pytest.raises(SystemExit) as caught:
        pack((85, 0))()
    assert (caught.value.code, calls) == (85, [])


def test_the_job_fails_as_its_worst_run_does_and_the_others_end(pack, tmp_path, monkeypatch):
    requeued(monkeypatch)
    with pytest.raises(SystemExit) as caught:
        pack((0, 0.2), (5, 0), (2, 0))()
    assert caught.value.code == 5
    assert [read_outcome(tmp_path, n)["exit_code"] for n in range(3)] == [0, 5, 2]


@pytest.mark.fault("F6")
def test_after_a_requeue_only_what_was_stopped_runs_again(pack, tmp_path, monkeypatch):
    calls = requeued(monkeypatch)
    for number, code in enumerate((0, 5, 85)):
        outcome_path(tmp_path, number).write_text(json.dumps({"exit_code": code}))
    pack((0, 0), (0, 0), (0, 0))()
    assert [Path(tmp_path / f"{number}.txt").exists() for number in range(3)] == [False, False, True]
    assert read_outcome(tmp_path, 2)["exit_code"] == 0
    assert calls == []


def test_a_run_that_a_stop_signal_kills_before_it_listens_is_resumable_and_others_are_not():
    assert job_module._exit_code(-signal.SIGUSR2) == 85
    assert job_module._exit_code(-signal.SIGKILL) == 137
    assert job_module._exit_code(3) == 3
