"""Run folders that were written before classes and keys moved: found, gone on with, reported and exported.

`former_layout/` is what a run of `COMMAND` left in its folder at da9a0e7, without its weights.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from robustlab.config import renames
from robustlab.config.compose import compose
from robustlab.config.occupant import differences, of_resolved, plain, read_occupant
from robustlab.config.renames import Layout
from robustlab.config.stored_config import read_config, read_starts
from robustlab.export.exported_network import load_pruned
from robustlab.export.run_export import export_run
from robustlab.report.collect import find_runs, group_runs
from robustlab.report.run_settings import flat_settings, varying
from tests.end_to_end.harness import SMALL, assert_same_run, train
from tests.faults.fake_wandb import FakeWandb
from tests.faults.injectors import on_call

FORMER = Path(__file__).parent / "former_layout"
NAME = "erm-digits-b0b70549"
COMMAND = [
    "method=erm", "noise=symmetric", "dataset.subset=200", "trainer.epochs=2", "trainer.batch_size=50",
    "trainer.log_every=1", "trainer.checkpoint.every_steps=2",
]  # fmt: skip
RECORDED = renames.recorded


def former(folder: Path, *names: str) -> Path:
    """Put files of the former layout into a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(FORMER / name, folder / name)
    return folder


def run(tmp_path: Path, *more: str, **options) -> tuple[int, str]:
    """Train below `tmp_path`; return the exit code and what was said."""
    log = tmp_path / "log.txt"
    log.unlink(missing_ok=True)
    code = train([*COMMAND, f"paths.output_dir={tmp_path / 'outputs'}", *more], log, **options)
    return code, log.read_text()


@pytest.mark.parametrize("known", ["record.json", "config.yaml"])
def test_a_finished_run_is_found_finished(tmp_path, known):
    folder = former(tmp_path / "outputs" / NAME / "seed0", "results.json", known)
    before = sorted(path.name for path in folder.iterdir())
    code, said = run(tmp_path)
    assert code == 0, said
    assert "already finished" in said
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == before
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [NAME]


@pytest.mark.parametrize("files", [("record.json",), ("config.yaml",), ("results.json", "record.json", "config.yaml")])
def test_another_run_is_refused_its_folder_for_what_differs_alone(tmp_path, files):
    folder = former(tmp_path / "outputs" / "x", *files)
    code, said = run(tmp_path, f"paths.run_dir={folder}", "optimizer.lr=0.1")
    assert code == 2, said
    assert [line.strip() for line in said.splitlines() if "when it was saved" in line] == [
        "optimizer.lr: 0.05 when it was saved, now 0.1"
    ]


def test_differences_are_told_in_todays_words(tmp_path, monkeypatch):
    table = Layout(modules={"robustlab.former": "torch.optim"}, neutral={"trainer.deterministic": True})
    record = json.loads((FORMER / "record.json").read_text())
    settings = record["identity"]["settings"]
    settings["optimizer._target_"] = "robustlab.former.SGD"
    del settings["trainer.deterministic"]
    folder = former(tmp_path / "x")
    (folder / "record.json").write_text(json.dumps(record))
    monkeypatch.setattr(renames, "recorded", lambda: (*RECORDED(), table))
    differ = differences_to(folder, "optimizer=adam")
    assert differ["optimizer._target_"].endswith("torch.optim.SGD when it was saved, now torch.optim.Adam")
    assert not [key for key in differ if not key.startswith("optimizer.")]
    assert list(differences_to(folder, "trainer.deterministic=false")) == ["trainer.deterministic"]


@pytest.mark.parametrize("known", ["record.json", "config.yaml"])
def test_a_class_that_had_two_names_is_one(tmp_path, known):
    path = former(tmp_path / "x", known) / known
    spelt = path.read_text().replace("data.augment.RandomAffine", "data.resample.RandomAffine")
    assert spelt != path.read_text()
    path.write_text(spelt)
    assert differences_to(path.parent) == {}
    if known == "config.yaml":
        assert of_resolved(yaml.safe_load(spelt)) == of_resolved(plain(compose([*SMALL, *COMMAND])))


def differences_to(folder: Path, *more: str) -> dict[str, str]:
    """Return the messages about how a composed run differs from the one in a folder."""
    occupant = read_occupant(folder)
    assert occupant is not None
    found = differences(occupant, compose([*SMALL, *COMMAND, *more]))
    assert found is not None
    return found


def test_a_run_stopped_in_mid_run_goes_on(tmp_path):
    assert run(tmp_path, f"paths.output_dir={tmp_path / 'whole'}")[0] == 0
    stop = partial(on_call, "robustlab.engine.learner:Learner.step", 5, partial(signal.raise_signal, signal.SIGTERM))
    assert run(tmp_path, before=stop)[0] == 85
    folder = tmp_path / "outputs" / NAME / "seed0"
    saved = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["identity"]
    first = json.loads((FORMER / "record.json").read_text())["identity"]
    assert saved["settings"] == first["settings"]  # so this checkpoint is one of the former layout
    former(folder, "config.yaml", "record.json")
    code, said = run(tmp_path)
    assert code == 0, said
    assert "resuming" in said
    assert "differ" not in said
    assert_same_run(tmp_path / "whole" / NAME / "seed0", folder)
    assert yaml.safe_load((folder / "config.yaml").read_text()) != yaml.safe_load((FORMER / "config.yaml").read_text())

    former(folder, "config.yaml")  # and what it had left is exported
    exported = export_run(folder, tmp_path / "export")
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(load_pruned(exported.folder)(images), exported.network(images))


def test_a_stored_model_that_moved_is_built_as_it_is_named_today(tmp_path, monkeypatch):
    assert run(tmp_path)[0] == 0
    folder = tmp_path / "outputs" / NAME / "seed0"
    table = Layout(modules={"robustlab.models.former": "robustlab.models.small_cnn"})
    monkeypatch.setattr(renames, "recorded", lambda: (*RECORDED(), table))
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("models.small_cnn.small_cnn", "models.former.small_cnn"))
    exported = export_run(folder, tmp_path / "export")
    assert exported.description["model"]["_target_"] == "robustlab.models.small_cnn.small_cnn"
    path = exported.folder / "model.json"
    path.write_text(path.read_text().replace("models.small_cnn.small_cnn", "models.former.small_cnn"))
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(load_pruned(exported.folder)(images), exported.network(images))


def test_the_report_takes_it_for_the_same_settings(tmp_path):
    folder = former(tmp_path / NAME / "seed0", "results.json", "config.yaml")
    today = flat_settings(plain(compose([*SMALL, *COMMAND])))
    assert varying([flat_settings(read_config(folder)), today]) == []
    other = former(tmp_path / "erm-digits-00000000" / "seed0", "results.json")
    content = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**content, "run_name": "erm-digits-00000000"}))
    settings = plain(compose([*SMALL, *COMMAND, "optimizer.lr=0.1"]))
    (other / "config.yaml").write_text(yaml.safe_dump(settings))
    groups = group_runs(find_runs(tmp_path)[0])
    assert sorted(group.variant for group in groups) == ["optimizer.lr=0.05", "optimizer.lr=0.1"]


def test_the_starts_in_a_record_are_read_in_todays_words(tmp_path):
    config = yaml.safe_load((FORMER / "config.yaml").read_text())
    (tmp_path / "record.json").write_text(json.dumps({"starts": [{"config": config, "code": {"dirty": False}}]}))
    (start,) = read_starts(tmp_path)
    assert start["code"] == {"dirty": False}
    assert flat_settings(start["config"]) == flat_settings(read_config(former(tmp_path / "x", "config.yaml")))
    assert start["config"]["dataset"] == plain(compose([*SMALL, *COMMAND]))["dataset"]


@pytest.mark.slow
def test_wandb_is_sent_todays_words(tmp_path):
    folder = former(tmp_path / NAME / "seed0", "results.json", "config.yaml", "metrics.jsonl", "timing.jsonl")
    with FakeWandb() as server:
        command = [sys.executable, "-m", "robustlab", "sync", str(folder)]
        environment = {**os.environ, **server.environment()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        (one,) = server.runs.values()
    today = plain(compose([*SMALL, *COMMAND]))
    for label in ("label", "reference"):  # which change nothing that is computed: the stored configuration has none
        del today["method"][label]
    for group in ("dataset", "noise", "method"):
        assert one.config[group]["value"] == today[group]
