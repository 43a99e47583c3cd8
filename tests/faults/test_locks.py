"""Two processes on one run folder: one works, the other says who; locks of the dead are taken over."""

import contextlib
import errno
import json
import multiprocessing
import os
import socket
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest

from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.engine import lock
from robustlab.engine.lock import Holder, locked
from tests.end_to_end.harness import assert_same_run, start, train
from tests.faults import injectors
from tests.faults.subjects import arguments

_context = multiprocessing.get_context("forkserver")


def no_flock(*arguments: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.fixture(params=["flock", "file"])
def kind(request, monkeypatch) -> str:
    if request.param == "file":
        monkeypatch.setattr(lock.fcntl, "flock", no_flock)
    return request.param


@pytest.mark.fault("F19", "F24")
def test_the_second_is_refused_naming_the_holder_and_the_lock_is_free_again_after(tmp_path, kind):
    for _ in range(2):
        with locked(tmp_path / "run"):
            for _ in range(2):
                expected = rf"is in use by process {os.getpid()} on {socket.gethostname()}.*; wait for it to end, or"
                with pytest.raises(RunFolderError, match=expected), locked(tmp_path / "run"):
                    raise AssertionError
    assert {path.name for path in (tmp_path / "run").iterdir()} == {lock.LOCK_FILE}


def _visit(folder: str, way: str, log: str, gate: float) -> None:
    """Enter the folder at the same moment as others; note when inside, and what else happened."""
    if way == "file":
        lock.fcntl.flock = no_flock
    guard = contextlib.nullcontext() if way == "none" else locked(Path(folder))
    time.sleep(max(0.0, gate - time.time()))
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        with guard:
            os.write(descriptor, b"in\n")
            time.sleep(0.3)
            os.write(descriptor, b"out\n")
    except RunFolderError:
        os.write(descriptor, b"refused\n")


def visits(folder: Path, way: str, count: int) -> list[str]:
    log, gate = folder / "log", time.time() + 1
    options = (str(folder / "run"), way, str(log), gate)
    processes = [_context.Process(target=_visit, args=options) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    return log.read_text().split()


def overlap(seen: list[str]) -> bool:
    inside = [word for word in seen if word != "refused"]
    return inside != ["in", "out"] * (len(inside) // 2)


@pytest.mark.fault("F19")
@pytest.mark.parametrize("way", ["flock", "file"])
def test_concurrent_visits_never_overlap(tmp_path, way):
    seen = visits(tmp_path, way, 8)
    assert len([word for word in seen if word != "out"]) == 8
    assert "in" in seen
    assert not overlap(seen)


@pytest.mark.fault("F19", control=True)
def test_concurrent_control_without_a_lock_visits_overlap(tmp_path):
    assert overlap(visits(tmp_path, "none", 8))


def leave(folder: Path, holder: Holder) -> Path:
    """Leave the lock file of somebody who was killed."""
    folder.mkdir()
    path = folder / lock.OWNER_FILE
    path.write_text(json.dumps(asdict(holder)))
    return path


def dead_pid() -> int:
    process = _context.Process(target=int)
    process.start()
    process.join()
    assert process.pid is not None
    return process.pid


@pytest.mark.fault("F19")
def test_stale_locks_of_dead_processes_other_boots_and_ended_jobs_are_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.fcntl, "flock", no_flock)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(lock, "_slurm_state", {"5": "", "6": "NODE_FAIL", "7": "RUNNING", "8": None}.get)
    me = Holder.this_process()
    gone = {
        "dead": replace(me, pid=dead_pid()),
        "number used again": replace(me, started="1"),
        "other boot": replace(me, boot="another"),
        "this job, before it was requeued": replace(me, host="elsewhere", job="77", restarts="0"),
        "job that SLURM forgot": replace(me, host="elsewhere", job="5"),
        "job whose node failed": replace(me, host="elsewhere", job="6"),
    }
    for name, holder in gone.items():
        leave(tmp_path / name, holder)
        with locked(tmp_path / name):
            assert str(me) in (tmp_path / name / lock.LOCK_FILE).read_text()
    alive = {
        "itself": me,
        "running job": replace(me, host="elsewhere", job="7"),
        "job of a SLURM that cannot be asked": replace(me, host="elsewhere", job="8"),
        "other host without SLURM": replace(me, host="elsewhere", job=None),
    }
    for name, holder in alive.items():
        path = leave(tmp_path / name, holder)
        expected = f"in use by process {holder.pid} on {holder.host}.*delete {path}"
        with pytest.raises(RunFolderError, match=expected), locked(tmp_path / name):
            raise AssertionError
        assert json.loads(path.read_text()) == asdict(holder)
    leave(tmp_path / "torn", me).write_text("{")
    with pytest.raises(RunFolderError, match="if none is running, delete"), locked(tmp_path / "torn"):
        raise AssertionError


@pytest.mark.fault("F19")
def test_slurm_is_asked_without_a_shell(tmp_path, monkeypatch):
    answers = {
        "1": "echo RUNNING",
        "2": "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
        "3": "exit 1",
    }
    for job, answer in answers.items():
        command = tmp_path / job / "squeue"
        command.parent.mkdir()
        command.write_text(f"#!/bin/sh\n{answer}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
        assert lock._slurm_state(job) == {"1": "RUNNING", "2": "", "3": None}[job]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lock._slurm_state("1") is None


def test_a_command_that_cannot_work_leaves_no_trace_but_never_takes_the_folder_of_another(tmp_path):
    with pytest.raises(ConfigError), locked(tmp_path / "a" / "seed0"):
        raise ConfigError("wrong")
    assert not (tmp_path / "a").exists()
    (tmp_path / "b" / "seed0").mkdir(parents=True)
    (tmp_path / "b" / "seed0" / "config.yaml").touch()
    with pytest.raises(ConfigError), locked(tmp_path / "b" / "seed0"):
        raise ConfigError("wrong")
    assert (tmp_path / "b" / "seed0" / "config.yaml").exists()


@pytest.mark.slow
@pytest.mark.fault("F19")
@pytest.mark.timeout(900)
def test_concurrent_starts_of_equal_and_different_settings(tmp_path):
    """Fifty at once: of five settings ten times each."""
    logs = [tmp_path / f"log{number}.txt" for number in range(50)]
    processes = [
        start(arguments("erm", tmp_path / "out", f"seed={number % 5}"), log) for number, log in enumerate(logs)
    ]
    for process in processes:
        process.join(800)
    codes = [process.exitcode for process in processes]
    for seed in range(5):
        ours = codes[seed::5]
        assert 0 in ours
        assert set(ours) <= {0, 4}
        for code, log in zip(ours, logs[seed::5], strict=True):
            text = log.read_text()
            assert "Traceback" not in text
            assert ("is in use by" in text) == (code == 4)
        alone = tmp_path / "alone"
        assert train(arguments("erm", alone, f"seed={seed}"), tmp_path / "alone.txt") == 0
        name = f"seed{seed}"
        assert_same_run(next(alone.glob(f"*/{name}")), next((tmp_path / "out").glob(f"*/{name}")))
    assert sorted(path.name for path in (tmp_path / "out").glob("*/*")) == [f"seed{seed}" for seed in range(5)]


def no_lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    folder.mkdir(parents=True, exist_ok=True)
    return contextlib.nullcontext()


TURNED_AWAY = ("is in use by", "already finished")


@pytest.mark.slow
@pytest.mark.fault("F19", control=True)
def test_lock_control_an_engine_without_a_lock_lets_both_write(tmp_path):
    before = partial(injectors.replace, "robustlab.engine.run:locked", no_lock)
    logs = [tmp_path / f"log{number}.txt" for number in range(3)]
    processes = [start(arguments("erm", tmp_path / "out", "trainer.epochs=6"), log, before=before) for log in logs]
    for process in processes:
        process.join(200)
    texts = [log.read_text() for log in logs]
    both = [text for text in texts if "training labels:" in text and not any(word in text for word in TURNED_AWAY)]
    assert len(both) > 1  # what is left of the folder is chance: each may remove or replace the files of another
