"""Every method computes, to the bit, what was recorded; and the record would notice if it did not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.bits import record
from tests.bits.__main__ import chosen, table
from tests.bits.execute import command, execute, run_one
from tests.bits.outcome import Outcome, fingerprint, weights_hash
from tests.bits.pictures import write_pictures
from tests.bits.runs import BY_METHOD, METHODS, Run
from tests.bits.special import RUNS
from tests.end_to_end import harness

ROOT = Path(__file__).parents[2]


def bits(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tests.bits", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1500,
    )


@pytest.fixture
def outcome(tmp_path):
    """A run of two rows and one network."""
    folder = tmp_path / "erm-digits-1a2b3c4d" / "seed0"
    (folder / "checkpoints").mkdir(parents=True)
    head = {"stage": "train", "epoch": 0, "split": "train"}
    rows = [{**head, "step": step, "train/loss": 1 / step} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {"selection": {}, "final": {"test/accuracy": 0.5, "test/loss": 1.0, "train/loss": 0.5}, "noise": None}
    (folder / "results.json").write_text(json.dumps({**results, "stage_ends": {}, "steps": 2}))
    state = {"learners": {"network": {"network": {"weight": torch.ones(2, 3)}, "ema": None}}}
    torch.save(state, folder / "checkpoints" / "last.pt")
    return Outcome(folder, "")


def changed(outcome, tmp_path, file, edit):
    """Return the outcome of a copy of the run with one of its files edited."""
    copy = tmp_path / "copy" / outcome.name / "seed0"
    copy.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", outcome.folder, copy], check=True)
    edit(copy / file)
    return replace(outcome, folder=copy)


def test_every_method_has_a_run_and_every_run_a_record():
    assert {*METHODS} == {*BY_METHOD}
    assert {control for run in RUNS.values() for control in run.controls} <= {*RUNS}
    assert {*record.recorded()["runs"]} == {*RUNS}


def test_the_same_run_does_not_differ(outcome):
    assert record.differences(fingerprint(outcome), outcome, to_the_bit=True) == []
    assert record.differences(fingerprint(outcome), outcome, to_the_bit=False) == []


def test_the_last_bit_of_a_metric_is_seen_and_named(outcome, tmp_path):
    def edit(path):
        path.write_text(path.read_text().replace("0.5", "0.5000000000000001"))

    now = changed(outcome, tmp_path, "metrics.jsonl", edit)
    (said,) = record.differences(fingerprint(outcome), now, to_the_bit=True)
    assert said == "metrics differ (row 2 of 2, stage train, epoch 0, step 2, split train; changed: train/loss)"


def test_a_metric_of_another_name_and_a_lost_row_are_named(outcome, tmp_path):
    def edit(path):
        path.write_text(path.read_text().splitlines()[0].replace("train/loss", "train/error") + "\n")

    now = changed(outcome, tmp_path, "metrics.jsonl", edit)
    (said,) = record.differences(fingerprint(outcome), now, to_the_bit=True)
    assert "row 1 of 2 (now 1)" in said
    assert "missing: train/loss; new: train/error" in said


def test_the_last_bit_of_a_weight_is_seen(outcome, tmp_path):
    def edit(path):
        state = torch.load(path)
        state["learners"]["network"]["network"]["weight"][1, 2] = 1 + 2**-23
        torch.save(state, path)

    now = changed(outcome, tmp_path, "checkpoints/last.pt", edit)
    assert record.differences(fingerprint(outcome), now, to_the_bit=True) == ["weights differ"]


def test_another_folder_is_seen_on_every_machine(outcome, tmp_path):
    moved = outcome.folder.parent.rename(tmp_path / "erm-digits-ffffffff")
    now = Outcome(moved / "seed0", "")
    for to_the_bit in (True, False):
        before = {**fingerprint(now), "folder": "erm-digits-1a2b3c4d"}
        said = record.differences(before, now, to_the_bit=to_the_bit)
        assert said == ["folder erm-digits-ffffffff, was erm-digits-1a2b3c4d"]


@pytest.mark.parametrize(
    ("metric", "value", "far"),
    [("accuracy", 0.46, False), ("accuracy", 0.3, True), ("loss", 1.04, False), ("loss", 2.0, True)],
)
def test_final_metrics_must_be_close_on_another_machine(outcome, tmp_path, metric, value, far):
    def edit(path):
        results = json.loads(path.read_text())
        results["final"][f"test/{metric}"] = value
        path.write_text(json.dumps(results))

    now = changed(outcome, tmp_path, "results.json", edit)
    found = record.differences(fingerprint(outcome), now, to_the_bit=False)
    assert [f"test/{metric}" in one for one in found] == [True] * far


def test_the_hash_sees_names_types_shapes_and_values():
    one = {"a": torch.zeros(2, 3)}
    others = [
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3).int()},
        {"a": torch.ones(2, 3)},
    ]
    assert weights_hash({"a": torch.zeros(3, 2).T}) == weights_hash(one)  # however it lies in memory
    assert len({weights_hash(weights) for weights in [one, *others]}) == 5


def test_a_run_that_does_not_enter_its_branch_is_refused(outcome):
    (said,) = record.not_proven("erm_cb", {"erm_cb": outcome, "erm_groups": outcome})
    assert said == "special branch not entered: AssertionError: balanced draws: weights like those of erm_groups"


def test_runs_are_chosen_by_patterns_and_names_that_no_run_has_are_refused():
    assert chosen("two_*,demp", ["demp", "demp_resnet", "two_demp"]) == ["demp", "two_demp"]
    with pytest.raises(SystemExit, match=r"no run is called nothing\*; --list prints their names"):
        chosen("demp,nothing*", ["demp"])


def test_a_difference_stands_in_the_table_and_is_counted():
    assert table({"elr": [], "erm": ["weights differ"]}, "same") == "elr  same\nerm  weights differ\n1 of 2 differ"


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_all_runs_compute_what_was_recorded(capsys):
    ended = bits("compare")
    with capsys.disabled():
        print("", *ended.stdout.splitlines()[-2:], sep="\n")  # how many are the same, and whether to the bit
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setitem(RUNS, "erm", Run(("method=erm", "trainer.epochs=-1")))
    found, failed = execute(["erm", "mixup"], tmp_path)
    assert [*found] == ["mixup"]
    assert failed["erm"].startswith("exit codes [2]: ")
    assert "trainer.epochs" in failed["erm"]


@pytest.mark.slow
def test_other_vectors_are_compared_loosely_and_said_to_be():
    ended = bits("compare", "--only", "erm,demp,jtt,crosssplit", ATEN_CPU_CAPABILITY="default")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "compared loosely: " in ended.stdout
    assert "vectors DEFAULT (recorded: " in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crosssplit", "magnitude", "cobalt_image"])
def test_a_process_of_its_own_computes_the_same_as_one_forked_from_the_server(tmp_path, name):
    write_pictures(tmp_path / "data")
    forked = run_one(name, tmp_path)
    own = tmp_path / "fresh"
    line = [sys.executable, "-m", "robustlab.train", *harness.SMALL, *command(name, own, tmp_path)]
    ended = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert fingerprint(Outcome(harness.run_folder(own), "")) == fingerprint(forked)
