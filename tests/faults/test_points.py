"""Death at every write, fsync and rename of a save: what is found afterwards is the old state or the new one."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from robustlab.core.files import write_text
from robustlab.engine.checkpoint import SCHEMA_VERSION, Checkpoints
from robustlab.tracking.trackers import METRICS_FILE, Trackers
from tests.end_to_end.harness import assert_same_run, run_folder, start, train
from tests.faults.injectors import Operations, count_operations, die_at, kill_at_operation
from tests.faults.subjects import arguments

_context = multiprocessing.get_context("forkserver")


def state(step: int) -> dict:
    return {"step": step, "weights": {str(n): torch.full((3000,), float(step)) for n in range(4)}}


def good_save(folder: Path, step: int) -> None:
    Checkpoints(folder).save(state(step))


def in_place_save(folder: Path, step: int) -> None:
    """The negative control: no temporary file, no rename."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "last.pt", "wb") as file:
        torch.save({"schema": SCHEMA_VERSION, **state(step)}, file)
        file.flush()
        os.fsync(file.fileno())


def save_with_rows(folder: Path, step: int) -> None:
    """Two rows, then a checkpoint that knows where they end, as the engine does it."""
    found, _ = Checkpoints(folder).load()
    trackers = Trackers(folder)
    if found is not None:
        trackers.load_state_dict(found["trackers"])
    for row in (2 * step, 2 * step + 1):
        trackers.log({"loss": row / 7}, stage="train", epoch=0, step=row, split="train")
    trackers.sync()
    Checkpoints(folder).save({"step": step, "trackers": trackers.state_dict()})
    trackers.finish()


def _sweep(save: Callable[[Path, int], None], root: Path) -> None:
    """For k = 1, 2, ...: after steps 1 and 2, die at the k-th operation of saving step 3, until that gets through."""
    save(root / "begun", 1)
    save(root / "begun", 2)
    for k in range(1, 1000):
        folder = root / str(k)
        shutil.copytree(root / "begun", folder)
        child = os.fork()
        if child == 0:
            Operations(folder, die_at(k)).install()
            save(folder, 3)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            (root / "points").write_text(str(k - 1))
            return


def sweep(save: Callable[[Path, int], None], root: Path) -> list[Path]:
    """Return the folders in which a save died, one for each point."""
    root.mkdir()
    process = _context.Process(target=_sweep, args=(save, root))
    process.start()
    process.join(200)
    assert process.exitcode == 0
    return [root / str(k) for k in range(1, int((root / "points").read_text()) + 1)]


@pytest.mark.fault("F2")
def test_at_all_points_the_newest_whole_checkpoint_is_the_old_or_the_new_one(tmp_path):
    folders = sweep(good_save, tmp_path / "sweep")
    assert len(folders) >= 20
    found = []
    for folder in folders:
        checkpoints = Checkpoints(folder)
        loaded, warnings = checkpoints.load()
        assert warnings == []
        assert loaded is not None
        assert all(bool((value == loaded["step"]).all()) for value in loaded["weights"].values())
        assert not list(folder.glob(".*"))
        found.append(loaded["step"])
        checkpoints.save(state(4))  # and from there it goes on
        assert Checkpoints(folder).load()[0]["step"] == 4  # type: ignore[index]
    assert set(found) == {2, 3}
    assert found == sorted(found)


@pytest.mark.fault("F2", "F5", control=True)
def test_points_control_a_save_in_place_loses_the_checkpoint(tmp_path):
    folders = sweep(in_place_save, tmp_path / "sweep")
    lost = 0
    for folder in folders:
        try:
            lost += bool(Checkpoints(folder).load()[1])
        except Exception:
            lost += 1
    assert lost >= 0.9 * len(folders)


@pytest.mark.fault("F2")
def test_at_all_points_the_metrics_go_on_without_a_gap_or_a_double(tmp_path):
    for folder in sweep(save_with_rows, tmp_path / "sweep"):
        loaded, _ = Checkpoints(folder).load()
        assert loaded is not None
        for step in range(loaded["step"] + 1, 5):
            save_with_rows(folder, step)
        rows = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
        assert [row["step"] for row in rows] == [2, 3, 4, 5, 6, 7, 8, 9]


def forgetful_rows(folder: Path, step: int) -> None:
    """The negative control: rows are appended, whatever the checkpoint knows of."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / METRICS_FILE, "a", encoding="utf-8") as file:
        for row in (2 * step, 2 * step + 1):
            file.write(json.dumps({"step": row}) + "\n")
            file.flush()
    Checkpoints(folder).save({"step": step})


@pytest.mark.fault("F2", control=True)
def test_points_control_rows_that_are_only_appended_are_doubled_or_torn(tmp_path):
    bad = 0
    folders = sweep(forgetful_rows, tmp_path / "sweep")
    for folder in folders:
        loaded, _ = Checkpoints(folder).load()
        assert loaded is not None
        for step in range(loaded["step"] + 1, 5):
            forgetful_rows(folder, step)
        lines = (folder / METRICS_FILE).read_text().splitlines()
        bad += len(lines) != 8
    assert bad > len(folders) / 2


def plain_text(folder: Path, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", f"{step}" * 1000)


@pytest.mark.fault("F2")
def test_at_all_points_a_small_file_is_the_old_or_the_new_one(tmp_path):
    folders = sweep(plain_text, tmp_path / "sweep")
    assert len(folders) >= 4
    for folder in folders:
        assert (folder / "config.yaml").read_text() in ("2" * 1000, "3" * 1000)


@pytest.mark.slow
@pytest.mark.fault("F2")
def test_points_of_a_whole_run_killed_at_every_tenth_of_its_operations(tmp_path):
    log, whole, broken = tmp_path / "log.txt", tmp_path / "whole", tmp_path / "broken"
    counter = tmp_path / "count"
    command = arguments("erm", whole)
    assert train(command, log, before=partial(count_operations, whole, counter)) == 0, log.read_text()
    total = int(counter.read_text())
    for _ in range(10):  # what is left gets shorter with each start
        process = start(arguments("erm", broken), log, before=partial(kill_at_operation, broken, total // 10))
        process.join(120)
        assert process.exitcode in (0, -9), log.read_text()
    assert train(arguments("erm", broken), log) == 0, log.read_text()
    assert_same_run(run_folder(whole), run_folder(broken))
    assert not list(run_folder(broken).rglob("*.tmp"))
