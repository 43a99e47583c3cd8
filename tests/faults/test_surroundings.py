"""Results do not depend on clocks, locale, umask, HOME, hash seed, folder, workers or threads."""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.serving.streaming import BatchDecoder, Request
from robustlab.engine.identity import check_resumable
from tests.end_to_end.harness import SMALL, assert_same_run, run_folder, start, train
from tests.faults.injectors import in_order, kill, on_call, replace
from tests.faults.subjects import arguments

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert train(arguments("erm", folder), folder / "log.txt") == 0
    return run_folder(folder)


def jumping_clock() -> None:
    """Let the time of day jump to and fro by hours, as at the end of summer time or between two nodes."""
    real, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return real() + (7200 if calls[0] % 3 else -7200)

    time.time = jumping


def strange_place(folder: Path) -> None:
    """Another working folder, strict permissions, no home."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    os.umask(0o077)
    os.environ.pop("HOME", None)


@pytest.mark.fault("F22")
def test_clock_umask_home_and_folder_change_no_bit(tmp_path, whole):
    log = tmp_path / "log.txt"
    before = partial(in_order, jumping_clock, partial(strange_place, tmp_path / "place"))
    environment = {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Kiritimati"}
    faults = partial(in_order, before, partial(on_call, "robustlab.engine.checkpoint:Checkpoints.save", 4, kill))
    process = start(arguments("erm", tmp_path / "out"), log, environment, faults)
    process.join(120)
    assert process.exitcode == -9, log.read_text()
    assert train(arguments("erm", tmp_path / "out"), log, environment, before) == 0, log.read_text()
    assert_same_run(whole, run_folder(tmp_path / "out"))
    assert not any(path.stat().st_mode & 0o077 for path in run_folder(tmp_path / "out").rglob("*"))
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.slow
@pytest.mark.fault("F22")
def test_hash_seed_and_no_terminal_change_no_bit(tmp_path, whole):
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "robustlab.train", *SMALL, *arguments("erm", tmp_path / seed)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        assert b"\x1b" not in done.stdout + done.stderr
        assert_same_run(whole, run_folder(tmp_path / seed))


def fold_with_clock(seed: int, *purpose: int | str) -> int:
    """The negative control: random streams that depend on when the run was started."""
    return (int(time.time()) // 3600 + hash((seed, *map(str, purpose)))) & rng._MASK63


@pytest.mark.fault("F22", control=True)
def test_clock_control_streams_that_depend_on_the_clock_change_the_result(tmp_path, whole):
    log = tmp_path / "log.txt"
    before = partial(in_order, partial(replace, "robustlab.core.rng:fold", fold_with_clock), jumping_clock)
    assert train(arguments("erm", tmp_path / "out"), log, before=before) == 0, log.read_text()
    with pytest.raises(AssertionError):
        assert_same_run(whole, run_folder(tmp_path / "out"))


# What differs when a run goes on

SAVE = "robustlab.engine.checkpoint:Checkpoints.save"


@pytest.mark.slow
@pytest.mark.fault("F25")
def test_another_number_of_workers_changes_no_bit(tmp_path):
    log, streaming = tmp_path / "log.txt", "dataset.storage=streaming"
    assert train(arguments("erm", tmp_path / "whole", streaming, "dataset.workers=0"), log) == 0, log.read_text()
    for workers, number in ((2, 3), (1, 3)):
        command = arguments("erm", tmp_path / "out", streaming, f"dataset.workers={workers}")
        process = start(command, log, before=partial(on_call, SAVE, number, kill))
        process.join(120)
        assert process.exitcode == -9, log.read_text()
    assert train(arguments("erm", tmp_path / "out", streaming, "dataset.workers=0"), log) == 0, log.read_text()
    assert_same_run(run_folder(tmp_path / "whole"), run_folder(tmp_path / "out"))


def decode_by_worker(decoder: BatchDecoder, request: Request) -> list[torch.Tensor]:
    """The negative control: an augmentation that depends on which process does it."""
    worker = torch.utils.data.get_worker_info()
    images = torch.stack([decoder._images.decode(row) for row in request.index])
    return [images.roll(4 if worker is None else worker.id, dims=-1) for _ in request.crops]


@pytest.mark.slow
@pytest.mark.fault("F25", control=True)
def test_worker_control_streams_of_each_worker_change_the_result(tmp_path):
    log, streaming = tmp_path / "log.txt", "dataset.storage=streaming"
    before = partial(replace, "robustlab.data.serving.streaming:BatchDecoder.__getitem__", decode_by_worker)
    for workers in (0, 2):
        command = arguments("erm", tmp_path / str(workers), streaming, f"dataset.workers={workers}")
        assert train(command, log, before=before) == 0, log.read_text()
    with pytest.raises(AssertionError):
        assert_same_run(run_folder(tmp_path / "0"), run_folder(tmp_path / "2"))


@pytest.mark.fault("F25")
def test_other_threads_are_warned_of_and_recorded(tmp_path):
    log, command = tmp_path / "log.txt", arguments("erm", tmp_path / "out")
    process = start(command, log, before=partial(on_call, SAVE, 3, kill))
    process.join(120)
    assert train([*command, "trainer.threads=2"], log) == 0, log.read_text()
    expected = "threads: 1 when it was saved, now 2; the last bits of the result may change"
    assert f"warning: {expected}" in log.read_text()
    starts = json.loads((run_folder(tmp_path / "out") / "record.json").read_text())["starts"]
    assert [one["warnings"] for one in starts] == [[], [expected]]


def identity(**circumstances: object) -> dict:
    same = {"torch": "2.9", "precision": "fp32", "processes": 1, "device": "cpu", "threads": 1}
    return {"run_name": "a", "seed": 0, "settings": {"lr": 1}, "circumstances": {**same, **circumstances}}


@pytest.mark.fault("F25", "F9")
@pytest.mark.parametrize(("name", "value"), [("torch", "2.8"), ("precision", "bf16"), ("processes", 2)])
def test_other_precision_ranks_or_torch_are_refused_unless_asked_for(tmp_path, name, value):
    before, now = identity(), identity(**{name: value})
    with pytest.raises(ConfigError, match=rf"\n  {name}: .* when it was saved, now {value}\n.*resume=force"):
        check_resumable(before, now, folder=tmp_path, force=False)
    assert check_resumable(before, now, folder=tmp_path, force=True)[0].startswith(f"resume=force: {name}: ")


@pytest.mark.fault("F25")
def test_another_device_is_only_warned_of(tmp_path):
    assert check_resumable(identity(), identity(), folder=tmp_path, force=False) == []
    found = check_resumable(identity(), identity(device="cuda"), folder=tmp_path, force=False)
    assert found == ["device: cpu when it was saved, now cuda; the last bits of the result may change"]
