"""From the command line to a network that stands alone: train, prune, export, load, predict."""

import json

import pytest
import torch

from robustlab.data.sources.digits import Digits
from robustlab.export.exported_network import load_pruned
from tests.end_to_end.harness import run_folder, train
from tests.report.test_report import script_at


@pytest.mark.slow
@pytest.mark.parametrize("ema", ["null", "0.9"])
def test_the_exported_network_is_as_good_as_the_run_said(tmp_path, capsys, ema):
    arguments = (
        "experiment=demp/digits_smoke", "method=magnitude", "method.prune_at=0.2", "trainer.epochs=3",
        "model.widths=[8,16]", "model.blocks=[1,1]", f"trainer.ema_decay={ema}", f"paths.output_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert train(arguments, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    folder = run_folder(tmp_path / "out")
    code, out, err = script_at("export.py", capsys, folder, "--out", tmp_path / "network")
    assert (code, err) == (0, "")
    assert "neuron sparsity 50.0%" in out
    about = json.loads((tmp_path / "network" / "model.json").read_text())
    network = load_pruned(tmp_path / "network")
    test = Digits().split("test")
    mean, std = (torch.tensor(about["normalisation"][name])[:, None, None] for name in ("mean", "std"))
    with torch.inference_mode():
        predicted = network((test.images / 255 - mean) / std).argmax(dim=1)
    results = json.loads((folder / "results.json").read_text())
    accuracy = (predicted == test.labels).float().mean().item()
    assert accuracy > 0.2
    assert accuracy == pytest.approx(results["selection"]["last"]["test/accuracy"], abs=1e-6)
    assert about["class_names"] == list("0123456789")
    assert about["neuron_sparsity"] == pytest.approx(results["final"]["pruning/neuron_sparsity"])
    assert about["weight_sparsity"] == pytest.approx(results["final"]["pruning/weight_sparsity"])
