"""CoBalT from the command line on digits over backgrounds that agree with their class: what it gains, and from what."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import train

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(1800)]


class Runs:
    """Runs of experiment=cobalt/digits_bg_tiny in one folder, by name."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.results: dict[str, dict[str, Any]] = {}

    def add(self, name: str, *options: str) -> dict[str, Any]:
        """Train and keep the results."""
        log, run = self.folder / f"{name}.txt", self.folder / name / "run"
        command = ["experiment=cobalt/digits_bg_tiny", f"paths.data_dir={self.data}", *options]
        command += [f"paths.output_dir={self.folder / name}", f"paths.run_dir={run}"]
        assert train(command, log, timeout=1200) == 0, log.read_text()
        self.results[name] = json.loads((run / "results.json").read_text())
        return self.results[name]

    def worst(self, name: str, rule: str = "last") -> float:
        """Accuracy of the worst group of the test split."""
        return self.results[name]["selection"][rule]["test/worst_group"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    import os

    data = os.environ.get("ROBUSTLAB_TEST_DATA")
    if not data:
        pytest.skip("set ROBUSTLAB_TEST_DATA to a folder with mnist/ to run this test")
    runs = Runs(tmp_path_factory.mktemp("cobalt"), Path(data))
    runs.add("cobalt")
    artifact = f"method.artifact={runs.folder / 'cobalt' / 'run' / 'concepts.pt'}"
    runs.add("again", "method=cobalt", artifact)
    runs.add("shuffled", "method=cobalt_shuffled", artifact)
    runs.add("inverted", "method=cobalt", artifact, "method.sampler.exponent=2.0")
    for method in ("erm", "erm_cb"):
        runs.add(method, f"method={method}")
    return runs


def test_concepts_become_the_backgrounds(runs):
    final = runs.results["cobalt"]["final"]
    assert final["concepts/concepts_used"] >= 3
    assert final["concepts/attribute_contrast"] >= 0.8


def test_balance_over_concepts_is_far_ahead_of_erm(runs):
    assert runs.worst("cobalt") >= runs.worst("erm") + 0.3
    assert runs.worst("cobalt", "ig") >= runs.worst("erm", "ig") + 0.3


def test_with_concepts_of_other_images_nothing_is_gained(runs):
    assert abs(runs.worst("shuffled") - runs.worst("erm_cb")) <= 0.1


def test_inferred_groups_tell_a_good_exponent_from_a_harmful_one(runs):
    good, harmful = (runs.results[name]["selection"]["ig"]["val/inferred_worst"] for name in ("cobalt", "inverted"))
    assert good > harmful + 0.2
    assert runs.worst("cobalt", "ig") > runs.worst("inverted", "ig") + 0.2


def test_a_run_from_the_file_of_concepts_has_the_same_classifier(runs):
    first, second = (runs.results[name]["selection"]["last"] for name in ("cobalt", "again"))
    same = {name: value for name, value in second.items() if name != "epoch"}
    assert same == {name: first[name] for name in same}
    assert not any(math.isnan(value) for value in same.values())


def test_what_is_measured_is_named(runs):
    results = runs.results["cobalt"]
    assert set(results["selection"]) >= {"last", "avg", "ig", "hg"}
    assert results["final"]["sampler/eta"] == 0
    assert results["groups"]["counts"]["train"]["round-brown_vertical"] > 700
