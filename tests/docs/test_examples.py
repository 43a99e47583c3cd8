"""The examples of docs/extending.md, taken from the page, run as it says, and do what it says."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.docs.pages import ROOT, blocks, commands
from tests.end_to_end.harness import train

PAGE = ROOT / "docs" / "extending.md"


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Path:
    """A folder with the files of the page, in which commands are run."""
    for block in blocks(PAGE):
        if block.path:
            file = tmp_path / block.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_run_together(lab):
    (command,) = commands(PAGE)
    log = lab / "log.txt"
    assert command[0] == "train"
    assert train(command[1:], log) == 0, log.read_text()
    (folder,) = lab.glob("outputs/gce-stripes-*/seed0")
    clean, assigned = np.arange(400) % 2, np.load(folder / "labels.npz")["assigned"]
    moved = clean != assigned
    assert 0 < moved.sum() < 0.4 * 200  # of the 80 drawn, about half get their own label again
    assert set(clean[moved]) == {0}
    results = json.loads((folder / "results.json").read_text())
    assert results["noise"]["num_wrong"] == moved.sum()
    assert results["final"]["test/accuracy"] > 0.9
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [row["epoch"] for row in rows if "diagnostics/churn" in row]
    assert epochs == [1, 2]  # none before the second


def test_the_loss_is_the_published_one(lab, monkeypatch):
    monkeypatch.syspath_prepend(str(lab))
    method = importlib.import_module("my_methods").GeneralizedCrossEntropy(q=0.7)
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1e3]])
    monkeypatch.setattr(method, "learners", {"network": lambda images: logits}, raising=False)
    loss = method.loss(SimpleNamespace(images=None, targets=torch.tensor([2, 3])), None)["loss"]
    assert loss.item() == pytest.approx((1 - 0.25**0.7) / 0.7 / 2)


def test_a_misspelt_setting_is_refused_with_the_right_one(lab):
    log = lab / "log.txt"
    assert train(["--config-dir", "my_conf", "method=gce", "method.qq=0.5"], log) == 2
    assert "method.q" in log.read_text()
    assert not (lab / "outputs").exists()


def test_a_rate_out_of_bounds_is_refused(lab):
    log = lab / "log.txt"
    assert train(["--config-dir", "my_conf", "noise=one_class", "method=gce", "noise.model.rate=1.4"], log) == 2
    assert "noise.model.rate" in log.read_text()


def test_the_readme_shows_the_same_method():
    def code(page, path):
        (text,) = [block.text for block in blocks(page) if block.path == path]
        return text.split("\n", 1)[1]

    for path in ("my_methods.py", "my_conf/method/gce.yaml"):
        assert code(ROOT / "README.md", path) == code(PAGE, path)
