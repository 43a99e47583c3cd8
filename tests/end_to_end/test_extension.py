"""A finished run that is given more epochs: it goes on, and no table takes it for a run of that length."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from robustlab.report.collect import collect, find_runs, group_runs
from tests.end_to_end.harness import assert_same_run, rows, start, train
from tests.faults.fake_wandb import FakeWandb
from tests.faults.injectors import kill, on_call

SMALL = [
    "method=erm", "dataset.subset=120", "model.widths=[8,16]", "trainer.batch_size=40", "trainer.log_every=1",
    "trainer.checkpoint.every_steps=2",
]  # fmt: skip
STEPS_PER_EPOCH = 3


def run(tmp_path: Path, epochs: int, *more: str, folder: str = "x") -> tuple[int, str]:
    """Train in one folder; return the exit code and what was said."""
    log = tmp_path / "log.txt"
    log.unlink(missing_ok=True)
    outputs = tmp_path / "outputs"
    places = [f"paths.output_dir={outputs}", f"paths.run_dir={outputs}/{folder}"]
    return train([*SMALL, f"trainer.epochs={epochs}", *places, *more], log), log.read_text()


def results(tmp_path: Path, folder: str = "x") -> dict:
    return json.loads((tmp_path / "outputs" / folder / "results.json").read_text())


def rates(folder: Path) -> list[float]:
    """Return the learning rate before each interval's end; one row for each step."""
    return [row["train/lr/network"] for row in rows(folder) if "train/lr/network" in row]


SCHEDULES = {
    "cosine": [],
    "multistep": ["scheduler=multistep", "scheduler.schedule.milestones=[1]"],
    "cosine by step": ["scheduler.interval=step"],
    "one cycle": ["scheduler=onecycle"],
    "timm": ["scheduler=timm_cosine", "scheduler.schedule.warmup_t=0"],
    "none": ["scheduler=none"],
}


@pytest.mark.parametrize(
    "schedule", [name if name == "multistep" else pytest.param(name, marks=pytest.mark.slow) for name in SCHEDULES]
)
def test_the_learning_rate_goes_on_as_in_a_run_of_the_new_length(schedule, tmp_path):
    more = SCHEDULES[schedule]
    assert run(tmp_path, 2, *more)[0] == 0
    code, said = run(tmp_path, 4, *more, "resume=force")
    assert code == 0, said
    assert run(tmp_path, 4, *more, folder="whole")[0] == 0
    extended, whole = rates(tmp_path / "outputs" / "x"), rates(tmp_path / "outputs" / "whole")
    assert len(extended) == len(whole) == 4 * STEPS_PER_EPOCH
    assert extended[2 * STEPS_PER_EPOCH :] == whole[2 * STEPS_PER_EPOCH :]
    assert results(tmp_path)["epochs"] == 4
    epochs = [row["epoch"] for row in rows(tmp_path / "outputs" / "x") if row["split"] == "epoch"]
    assert epochs == [0, 1, 2, 3]


def test_a_run_without_a_schedule_ends_where_the_longer_one_does(tmp_path):
    assert run(tmp_path, 2, "scheduler=none")[0] == 0
    assert run(tmp_path, 4, "scheduler=none", "resume=force")[0] == 0
    assert run(tmp_path, 4, "scheduler=none", folder="whole")[0] == 0
    extended, whole = results(tmp_path), results(tmp_path, "whole")
    assert extended["final"] == whole["final"]
    assert extended["selection"] == whole["selection"]
    assert extended["run_name"] != whole["run_name"]


@pytest.mark.slow
def test_an_extended_run_says_so_everywhere_and_stands_apart_in_the_report(tmp_path):
    outputs = tmp_path / "outputs"
    assert run(tmp_path, 1)[0] == 0
    before = (outputs / "x" / "results.json").read_bytes()
    code, said = run(tmp_path, 2)
    assert code == 2
    assert "resume=force" in said
    assert (outputs / "x" / "results.json").read_bytes() == before
    assert run(tmp_path, 2, "resume=force")[0] == 0
    assert run(tmp_path, 3, "resume=force")[0] == 0
    found = results(tmp_path)
    assert found["extended_from"] == [1, 2]
    assert json.loads((outputs / "x" / "record.json").read_text())["identity"]["extended_from"] == [1, 2]
    assert (outputs / "x" / "results.1_epochs.json").read_bytes() == before
    assert run(tmp_path, 3, folder="whole")[0] == 0
    groups = group_runs(find_runs(outputs)[0])
    assert sorted(len(group.runs) for group in groups) == [1, 1]
    assert any("extended_from=" in group.label for group in groups), [group.label for group in groups]
    assert len(collect(outputs).entries) == 2

    code, said = run(tmp_path, 3, "resume=force")  # the same command again: done
    assert (code, "already finished" in said) == (0, True)
    code, said = run(tmp_path, 3)  # without force it would pass for a run of three epochs
    assert code == 2
    assert "extended from trainer.epochs=1; extended from trainer.epochs=2" in said
    for epochs in (1, 2):
        code, said = run(tmp_path, epochs, "resume=force")
        assert code == 2
        assert f"trainer.epochs: 3 when it was saved, now {epochs}" in said
    assert results(tmp_path) == found


def test_an_extension_that_dies_and_goes_on_ends_with_the_same_result(tmp_path):
    for folder in ("x", "broken"):
        assert run(tmp_path, 1, folder=folder)[0] == 0
    assert run(tmp_path, 4, "resume=force")[0] == 0
    broken = tmp_path / "outputs" / "broken"
    command = [*SMALL, "trainer.epochs=4", f"paths.output_dir={broken.parent}", f"paths.run_dir={broken}"]
    command += ["resume=force"]
    process = start(
        command, tmp_path / "log.txt", before=partial(on_call, "robustlab.engine.checkpoint:Checkpoints.save", 3, kill)
    )
    process.join(120)
    assert process.exitcode == -9
    assert not (broken / "results.json").exists()  # what the shorter run had does not pass for the longer one's
    code, said = run(tmp_path, 4, "resume=force", folder="broken")
    assert code == 0, said
    assert_same_run(tmp_path / "outputs" / "x", broken)
    assert results(tmp_path, "broken")["extended_from"] == [1]


REFUSED = {
    "crosssplit": (["method=crosssplit", "method.warmup.epochs=1"], "it trains in 2 stages (warmup, ssl)"),
    "demp": (["method=demp", "method.death.num_samples=60"], "planned for all updates"),
    "dense": (["method=dense", "method.death.num_samples=60"], "planned for all updates"),
    "jtt": (["method=jtt"], "it trains in 2 stages (identify, train)"),
    "max_steps": (["trainer.max_steps=4"], "trainer.max_steps=4 ends it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_extended_is_refused_and_left_as_it_is(name, tmp_path):
    more, expected = REFUSED[name]
    assert run(tmp_path, 2, *more)[0] == 0
    folder = tmp_path / "outputs" / "x"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    code, said = run(tmp_path, 3, *more, "resume=force")
    assert code == 2, said
    assert expected in said
    assert "cannot be extended" in said
    assert {path: path.read_bytes() for path in before} == before


def test_force_gives_an_unfinished_run_its_new_rates_and_marks_the_result(tmp_path):
    folder = tmp_path / "outputs" / "x"
    assert run(tmp_path, 2)[0] == 0
    (folder / "results.json").unlink()  # as if it had died before its end was written
    code, said = run(tmp_path, 2, "optimizer.lr=0.5", "resume=force")
    assert code == 0, said
    assert results(tmp_path)["forced"] == ["optimizer.lr: 0.05 when it was saved, now 0.5"]
    code, said = run(tmp_path, 2, "optimizer.lr=0.5")
    assert code == 2
    assert "changed by force (optimizer.lr: 0.05 when it was saved, now 0.5)" in said
    (folder / "results.json").unlink()
    code, said = run(tmp_path, 2, "optimizer=adam", "resume=force")
    assert code == 2
    assert "cannot transfer state between optimizers" in said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_wandb_shows_that_a_run_was_extended_and_its_new_settings(tmp_path):
    with FakeWandb() as server:
        environment = {**server.environment(), "HOME": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path)}
        log, outputs = tmp_path / "log.txt", tmp_path / "outputs"
        command = [*SMALL, f"paths.output_dir={outputs}", f"paths.run_dir={outputs}/x", "tracker=default"]
        assert train([*command, "trainer.epochs=1"], log, environment) == 0, log.read_text()
        (run,) = server.runs.values()
        assert "extended_from" not in run.config
        assert train([*command, "trainer.epochs=2", "resume=force"], log, environment) == 0, log.read_text()
        (same,) = server.runs.values()
        assert same.config["extended_from"]["value"] == [1]
        assert same.config["trainer"]["value"]["epochs"] == 2
    with FakeWandb() as server:  # a server that learns of the run afterwards
        done = subprocess.run(
            [sys.executable, "-m", "robustlab", "sync", str(outputs)],
            env={**os.environ, **server.environment(), "HOME": str(tmp_path)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (synced,) = server.runs.values()
        assert synced.config["extended_from"]["value"] == [1]
