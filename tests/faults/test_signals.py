"""Signals to the process or its group, in training, evaluation and while a checkpoint is written."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from robustlab.core.errors import RunFolderError
from robustlab.core.signals import STOP_SIGNALS, StopFlag, StoppedEarly
from robustlab.engine.checkpoint import read_checked
from tests.end_to_end.harness import assert_same_run, kill_group, run_folder, start, train
from tests.faults.injectors import Operations, in_order, on_call, replace
from tests.faults.subjects import arguments

POINTS = {
    "train": "robustlab.engine.learner:Learner.step",
    "eval": "robustlab.engine.evaluate:evaluate",
    "batch": "robustlab.methods.single_network:SingleNetwork.predict",
    "save": "robustlab.engine.checkpoint:write_atomically",
    "data": "robustlab.engine.build_data:Data",
}
STREAMING = ("dataset.storage=streaming", "dataset.workers=2")


def send(number: int, group: bool, times: int = 1) -> None:
    """Send a signal to this process, or to its group: its workers, too."""
    for _ in range(times):
        if group:
            os.killpg(0, number)
        else:
            os.kill(os.getpid(), number)


def at(point: str, number: int, *, group: bool = False, times: int = 1, call: int = 1):
    """Return the fault that sends a signal when a run comes to a point."""
    return partial(on_call, POINTS[point], call, partial(send, number, group, times))


def ended(outputs: Path, log: Path, *more: str, before=None) -> int:
    """Start a small run, wait, and check that nothing of its group is left; return its exit code."""
    process = start(arguments("erm", outputs, *more), log, before=before)
    process.join(120)
    assert process.exitcode is not None, log.read_text()
    assert process.pid is not None
    deadline = time.monotonic() + 30  # this harness leaves by os._exit; workers look after their parent every 5 s
    while _is_there(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_there(process.pid), "orphans"
    return process.exitcode


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert train(arguments("erm", folder), folder / "log.txt") == 0
    return run_folder(folder)


@pytest.mark.fault("F4")
@pytest.mark.parametrize("point", ["train", "eval", "save"])
def test_signal_to_the_process_saves_the_step_and_exits_with_85(tmp_path, whole, point):
    log = tmp_path / "log.txt"
    assert ended(tmp_path / "out", log, before=at(point, signal.SIGUSR1)) == 85, log.read_text()
    assert "stopped by SIGUSR1 after step" in log.read_text()
    step = read_checked(run_folder(tmp_path / "out") / "checkpoints" / "last.pt")["cursor"]["global_step"]
    assert step == {"train": 1, "eval": 6, "save": 4}[point]  # the step at hand; after an epoch or a save: the next
    assert ended(tmp_path / "out", log) == 0, log.read_text()
    assert_same_run(whole, run_folder(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.fault("F4")
@pytest.mark.parametrize("storage", ["resident", "streaming"])
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_matrix_of_process_and_group_in_training_evaluation_and_save(tmp_path, whole, number, storage):
    log = tmp_path / "log.txt"
    more = STREAMING if storage == "streaming" else ()
    for group in (False, True):
        for point in ("train", "eval", "save"):
            code = ended(tmp_path / "out", log, *more, before=at(point, number, group=group))
            assert code == 85, (point, group, log.read_text())
    assert ended(tmp_path / "out", log, *more) == 0, log.read_text()
    if storage == "streaming":  # another run by its settings, with the same images
        assert train(arguments("erm", tmp_path / "other", *more), log) == 0
    assert_same_run(whole if storage == "resident" else run_folder(tmp_path / "other"), run_folder(tmp_path / "out"))


def default_signals(worker: int) -> None:
    """The negative control: what a worker is without `ignore_signals`."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@pytest.mark.slow
@pytest.mark.fault("F4", control=True)
def test_signal_control_workers_that_do_not_ignore_it_take_the_run_down(tmp_path):
    bad = partial(replace, "robustlab.data.serving.workers:ignore_signals", default_signals)
    log = tmp_path / "log.txt"
    before = partial(in_order, bad, at("batch", signal.SIGTERM, group=True, call=2))  # most batches are yet to come
    process = start(arguments("erm", tmp_path / "out", *STREAMING, "trainer.eval_batch_size=5"), log, before=before)
    process.join(120)
    kill_group(process, signal.SIGKILL)  # what it leaves behind is what `ended` would find
    assert process.exitcode not in (0, 85), log.read_text()


@pytest.mark.fault("F5")
@pytest.mark.parametrize(("point", "number"), [("save", signal.SIGINT), ("train", signal.SIGTERM)])
def test_signals_fifty_in_a_row_are_one(tmp_path, whole, point, number):
    log = tmp_path / "log.txt"
    assert ended(tmp_path / "out", log, before=at(point, number, times=50)) == 85, log.read_text()
    assert "Traceback" not in log.read_text()
    assert ended(tmp_path / "out", log) == 0, log.read_text()
    assert_same_run(whole, run_folder(tmp_path / "out"))


@pytest.mark.fault("F5")
def test_signal_before_training_stops_at_once_and_leaves_nothing_half_done(tmp_path, whole):
    log = tmp_path / "log.txt"
    assert ended(tmp_path / "out", log, before=at("data", signal.SIGTERM)) == 85, log.read_text()
    assert "stopped by SIGTERM before the first step" in log.read_text()
    held = partial(on_call, "robustlab.core.signals:StopFlag.__enter__", 1, partial(send, signal.SIGUSR1, False))
    assert ended(tmp_path / "out", log, before=held) == 85, log.read_text()  # while torch is imported
    assert ended(tmp_path / "out", log) == 0, log.read_text()
    assert_same_run(whole, run_folder(tmp_path / "out"))


@pytest.mark.fault("F5")
def test_signal_second_interrupt_of_a_person_ends_the_run_at_once_with_85(tmp_path, whole):
    log = tmp_path / "log.txt"
    twice = partial(in_order, partial(replace, "robustlab.core.signals:_ONE_KEYSTROKE", -1.0),
                    at("save", signal.SIGINT, times=2, call=3))  # fmt: skip
    assert ended(tmp_path / "out", log, before=twice) == 85, log.read_text()
    assert "train: interrupted; the same command goes on from the last checkpoint" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert ended(tmp_path / "out", log) == 0, log.read_text()
    assert_same_run(whole, run_folder(tmp_path / "out"))


def save_in_place(path: Path, state: dict) -> None:
    import torch

    with open(path.with_name("last.pt"), "wb") as file:
        torch.save(dict(state), file)
    path.with_name("next.pt").write_bytes(path.with_name("last.pt").read_bytes())


def signal_in_write(root: Path) -> None:
    """Send SIGTERM, which nobody handles, in the middle of writing the second checkpoint."""

    def action(number: int, file, data) -> None:
        if file is not None and str(file.name).endswith("last.pt"):
            action.writes += 1
            if action.writes == 40:
                file.write(data[: len(data) // 2])
                file.flush()
                os.kill(os.getpid(), signal.SIGTERM)

    action.writes = 0
    Operations(root, action).install()
    replace("robustlab.core.signals:STOP_SIGNALS", ())
    replace("robustlab.launch.start:hold_back", lambda: None)
    replace("robustlab.engine.checkpoint:write_atomically", save_in_place)


@pytest.mark.fault("F5", control=True)
def test_signal_control_without_handler_and_in_place_the_checkpoint_is_torn(tmp_path):
    log = tmp_path / "log.txt"
    assert ended(tmp_path / "out", log, before=partial(signal_in_write, tmp_path / "out")) == -signal.SIGTERM
    with pytest.raises(RunFolderError):
        read_checked(run_folder(tmp_path / "out") / "checkpoints" / "last.pt")


def test_signal_that_came_too_late_for_one_run_stops_the_next():
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.name == "SIGUSR1"
    with StopFlag() as stop:
        assert stop.name == "SIGUSR1"
        with pytest.raises(StoppedEarly), stop.at_once():
            raise AssertionError
        stop.name = None
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
