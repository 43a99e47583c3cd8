"""features=frozen from the command line: linear classifiers on the features of a network that stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts.export import main as export

from tests.end_to_end.harness import train, weights

pytestmark = pytest.mark.slow

METHODS = ("erm", "erm_cb", "rwg", "subg", "groupdro", "jtt", "dfr", "spectral_decoupling", "co_teaching", "elr")
SMALL = ("dataset.source.train=200", "dataset.source.val=60", "dataset.source.test=60", "trainer.batch_size=8")
EMBEDDED = (
    "dataset=digits_bg/embedded",
    *SMALL,
    "noise=none",
    "model=small_cnn_grid",
    "trainer.epochs=1",
    "method=erm",
)
DISCOVERY = (
    "setting=digits_bg_tiny",
    "method=cobalt",
    "method.discover.epochs=1",
    "method.slots.hidden=16",
    "method.sampler.rare_count=1",
)


class Runs:
    """Runs with one cache of features, each in a folder of its own."""

    def __init__(self, folder: Path, *common: str) -> None:
        self.folder, self.common = folder, (*common, f"paths.cache_dir={folder / 'cache'}")

    def __call__(self, name: str, *overrides: str, code: int = 0) -> dict[str, Any]:
        """Train; return the results and, under "log", what was printed."""
        log = self.folder / f"{name}.txt"
        places = [f"paths.output_dir={self.folder / name}", f"paths.run_dir={self.run(name)}"]
        assert train([*self.common, *overrides, *places], log) == code, log.read_text()
        found = json.loads((self.run(name) / "results.json").read_text()) if code == 0 else {}
        return {**found, "log": log.read_text()}

    def run(self, name: str) -> Path:
        return self.folder / name / "run"


def worst_group(results: dict[str, Any]) -> float:
    return results["selection"]["last"]["test/worst_group"]


def test_a_linear_classifier_is_trained_on_features_computed_once(tmp_path):
    runs = Runs(tmp_path, *EMBEDDED, "features=frozen")
    first = runs("first")
    assert first["log"].count("computing the features of") == 3
    assert (first["model"], first["parameters"]) == ("small_cnn_grid (frozen)", 48 * 2 + 2)
    assert len(list((tmp_path / "cache" / "features").glob("small_cnn_grid-*.npy"))) == 3
    second = runs("second", "method=groupdro", "seed=1", "optimizer.lr=0.01")
    assert "computing" not in second["log"]
    assert runs("other", "features.seed=1")["log"].count("computing the features of") == 3


def test_stage_1_of_cobalt_and_export_say_what_they_need(tmp_path, capsys):
    runs = Runs(tmp_path, *EMBEDDED, "features=frozen")
    said = runs("cobalt", "method=cobalt", code=2)["log"]
    assert "method.artifact=<its folder>/concepts.pt" in said
    assert "Traceback" not in said
    assert not runs.run("cobalt").exists()
    runs("erm")
    assert export([str(runs.run("erm"))]) == 2
    assert "linear classifier on frozen features" in capsys.readouterr().err


def test_every_method_that_reads_one_view_trains_on_features(tmp_path):
    log, outputs, cache = tmp_path / "log.txt", tmp_path / "outputs", tmp_path / "cache"
    sweep = ["hydra.mode=MULTIRUN", *EMBEDDED[:-1], "features=frozen", f"method={','.join(METHODS)}"]
    assert train([*sweep, f"paths.cache_dir={cache}", f"paths.output_dir={outputs}"], log) == 0, log.read_text()
    assert log.read_text().count("computing the features of") == 3
    found = [json.loads(path.read_text()) for path in outputs.glob("*/seed0/results.json")]
    assert {one["method"] for one in found} == set(METHODS)
    for one in found:
        assert 0 <= worst_group(one) <= 1
        assert one["parameters"] == (48 * 2 + 2) * (2 if one["method"] in ("co_teaching", "jtt") else 1)


def test_concepts_found_in_images_balance_the_classifier_on_features(tmp_path):
    runs = Runs(tmp_path, *EMBEDDED)
    alone = runs("discovery", *DISCOVERY, "method.classify=false")
    assert (alone["epochs"], alone["selection"]) == (1, {})
    artifact = f"method.artifact={runs.run('discovery') / 'concepts.pt'}"
    options = ("features=frozen", artifact)
    found = [runs(name, *DISCOVERY, *options, *more) for name, more in (("one", ()), ("two", ("seed=1",)))]
    assert [one["log"].count("computing the features") for one in found] == [3, 0]
    assert all(one["final"]["sampler/eta"] == 0 for one in found)
    first, second = (weights(runs.run(name)) for name in ("one", "two"))
    assert any(not torch.equal(first[name], second[name]) for name in first)  # other initial weights
    other = runs("other", *DISCOVERY, "features=frozen", artifact, "dataset.source.correlation=0.9", code=2)
    assert "belongs to other samples" in other["log"]


@pytest.mark.real_data
def test_features_of_a_trained_network_from_a_file(tmp_path, real_data):
    """What a network trained by ERM computes tells the classes apart, and shows which samplers help, in seconds."""
    recipe = ("experiment=cobalt/digits_bg_tiny", "method=erm", f"paths.data_dir={real_data}")
    runs = Runs(tmp_path, *recipe)
    whole = runs("whole")
    assert export([str(runs.run("whole"))]) == 0
    frozen = ("features=frozen", f"features.weights={runs.run('whole') / 'export' / 'model.safetensors'}")
    probes = {name: runs(name, *frozen, f"method={name}") for name in ("erm", "dfr", "groupdro")}
    average = {name: one["final"]["test/accuracy"] for name, one in {**probes, "whole": whole}.items()}
    assert abs(average["erm"] - average["whole"]) < 0.05
    assert worst_group(probes["dfr"]) > worst_group(probes["erm"]) + 0.2
    missing = runs("missing", "features=frozen", "features.weights=nowhere.pth", code=2)["log"]
    assert "features.weights: there is no file nowhere.pth" in missing
