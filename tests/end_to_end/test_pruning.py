"""Runs that prune, through the command line: killed around removals, on two ranks, with nothing left, as a sweep."""

import json
import signal
from itertools import pairwise

import pytest
import torch

from robustlab.models.external import torchvision_model
from robustlab.models.small_cnn import small_cnn
from robustlab.models.units import units_of
from robustlab.pruning.scores import magnitude_scores
from tests.end_to_end.harness import assert_same_run, rows, run_folder, start, train
from tests.end_to_end.test_ddp import train_two

SMALL = [
    "noise=none", "model=small_cnn", "model.widths=[8,16]", "optimizer.lr=0.1", "dataset.subset=400",
    "trainer.epochs=4", "trainer.evaluate_every=2", "trainer.log_every=5", "trainer.checkpoint.every_steps=3",
]  # fmt: skip
DEMP = ["method=demp", "method.surgery.every=4", "method.reg.peak=1.0", "method.reg.span=0.7", *SMALL]
DYING = "method._target_=tests.end_to_end.dying.DyingDemP"


def events(folder):
    return json.loads((folder / "pruning.json").read_text())["events"]


@pytest.mark.slow
def test_killed_before_in_and_after_a_removal_a_run_ends_with_the_same_bits(tmp_path):
    command = [*DEMP, DYING]
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log.txt"
    assert train([*command, f"paths.output_dir={whole}"], log) == 0, log.read_text()
    removals = [event["t"] for event in events(run_folder(whole)) if event["removed"]]
    assert {8, 12, 16} <= set(removals)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([["before", 8], ["in", 12], ["after", 16]]))
    for _ in range(3):
        process = start([*command, f"paths.output_dir={broken}"], log, {"KILL_PLAN": str(plan)})
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, log.read_text()
    assert json.loads(plan.read_text()) == []
    assert train([*command, f"paths.output_dir={broken}"], log) == 0, log.read_text()
    assert "resuming in" in log.read_text()
    assert_same_run(run_folder(whole), run_folder(broken))
    assert events(run_folder(whole)) == events(run_folder(broken))


def test_the_summary_the_metrics_and_the_checkpoint_agree(tmp_path):
    log = tmp_path / "log.txt"
    assert train([*DEMP, f"paths.output_dir={tmp_path}/out"], log) == 0, log.read_text()
    folder = run_folder(tmp_path / "out")
    results = json.loads((folder / "results.json").read_text())
    last = events(folder)[-1]
    assert results["parameters"] == last["parameters"]
    live = {name.removeprefix("pruning/live/"): v for name, v in results["final"].items() if "/live/" in name}
    assert live == last["live"]
    assert not any(name.startswith("time/") for name in results["final"])
    assert all(not name.startswith("time/") for row in rows(folder) for name in row)
    assert any("time/pruning_seconds" in row for row in rows(folder, "timing.jsonl"))
    assert "Removed by pruning" in log.read_text()
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["learners"]["network"]
    kept = [len(units) for units in state["units"]["live"].values()]
    assert kept == list(last["units"].values())
    assert state["network"]["classifier.weight"].shape == (10, kept[-1])
    assert (folder / "figures" / "live_units.png").stat().st_size > 1000


def test_with_no_unit_left_a_run_exits_with_5_and_says_what_to_do(tmp_path):
    log = tmp_path / "log.txt"
    process = start([*DEMP, DYING, f"paths.output_dir={tmp_path}/out"], log, {"DIE": "all"})
    process.join(120)
    assert process.exitcode == 5, log.read_text()
    assert "lower method.reg.peak, which is 1.0, or let the penalty stop earlier" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_two_ranks_remove_the_same_units_as_one_process(tmp_path):
    command = ["method=demp", "method.reg.kind=l1", "method.reg.target=all", "method.reg.peak=0.02", *SMALL[2:]]
    command += ["noise=none", "model=mlp", "model.widths=[24,16]", "model.norm=none", "method.surgery.every=4"]
    command = [text for text in command if text != "model.widths=[8,16]"]
    assert train([*command, f"paths.output_dir={tmp_path / 'one'}"], tmp_path / "log.txt") == 0
    train_two([*command, f"paths.output_dir={tmp_path / 'two'}"], tmp_path)
    one, two = (events(run_folder(tmp_path / name)) for name in ("one", "two"))
    assert [event["live"] for event in one] == [event["live"] for event in two]
    assert len(one) > 2


FINE_TUNED = ["method=magnitude", "method.prune_at=0", "optimizer.lr=0.05", "noise=none"]


def kept(folder) -> list[list[int]]:
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["learners"]["network"]
    return [units.tolist() for units in state["units"]["live"].values()]


def largest(network, units) -> list[list[int]]:
    """The better half of each layer."""
    scores = magnitude_scores(network, units)
    return [sorted(values.topk(len(values) - int(len(values) / 2)).indices.tolist()) for values in scores.values()]


def test_a_finished_run_is_pruned_and_fine_tuned(tmp_path):
    log = tmp_path / "log.txt"
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(["method=dense", *SMALL, f"paths.output_dir={whole}"], log) == 0, log.read_text()
    run = run_folder(whole)
    command = [*SMALL, *FINE_TUNED, f"model.weights={run}", f"paths.output_dir={cut}"]
    assert train(command, log) == 0, log.read_text()
    network = small_cnn(num_classes=10, image_shape=(1, 8, 8), widths=[8, 16], weights=str(run))
    assert kept(run_folder(cut)) == largest(network, units_of(network))
    final = [json.loads((run_folder(place) / "results.json").read_text())["final"] for place in (whole, cut)]
    assert final[1]["pruning/neuron_sparsity"] == 0.5
    assert final[1]["test/accuracy"] > final[0]["test/accuracy"] - 0.15, final


def test_a_librarys_resnet_from_a_file_is_pruned_and_fine_tuned(tmp_path):
    log, path = tmp_path / "log.txt", tmp_path / "w.pth"
    torch.manual_seed(0)
    network = torchvision_model(num_classes=10, image_shape=(1, 8, 8), architecture="resnet18")
    torch.save(network.trunk.state_dict(), path)
    command = [*FINE_TUNED, "dataset.subset=64", "model=torchvision", f"model.weights={path}", "trainer.epochs=1"]
    assert train([*command, f"paths.output_dir={tmp_path}/out"], log) == 0, log.read_text()
    folder = run_folder(tmp_path / "out")
    assert kept(folder) == largest(network, units_of(network))
    assert json.loads((folder / "results.json").read_text())["final"]["pruning/neuron_sparsity"] == 0.5


def test_depthwise_convolutions_are_refused_before_training(tmp_path):
    log = tmp_path / "log.txt"
    command = ["method=magnitude", "noise=none", "model=timm", "model.architecture=mobilenetv3_small_050"]
    assert train([*command, "dataset.subset=64", f"paths.output_dir={tmp_path}/out"], log) == 2
    assert "is a convolution depthwise, whose channels cannot be removed one by one" in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("peak", [0.1, 0.2])
def test_a_floor_keeps_the_network_learning_under_large_penalties(tmp_path, peak):
    log = tmp_path / "log.txt"
    command = ["experiment=demp/digits", f"method.reg.peak={peak}", "method.reg.floor=2", "method.reg.span=0.7"]
    assert train([*command, f"paths.output_dir={tmp_path}/out"], log, timeout=280) == 0, log.read_text()
    final = json.loads((run_folder(tmp_path / "out") / "results.json").read_text())["final"]
    assert min(value for name, value in final.items() if "/live/" in name) >= 2
    assert final["test/accuracy"] > 0.9
    assert final["pruning/neuron_sparsity"] > 0.4


@pytest.mark.slow
def test_a_sweep_of_the_penalty_runs_every_point(tmp_path):
    log = tmp_path / "log.txt"
    command = [
        "hydra.mode=MULTIRUN",
        "experiment=demp/sweep/digits_smoke",
        "trainer.max_steps=2",
        f"paths.output_dir={tmp_path}/out",
    ]
    assert train(command, log) == 0, log.read_text()
    assert len(list((tmp_path / "out").glob("*/seed0/results.json"))) == 5


SMOKE = {
    "sgd 0": (["method.reg.peak=0"], (0.0, 0.0), 0.97),
    "sgd 0.005": (["method.reg.peak=0.005"], (0.0, 0.0), 0.97),
    "sgd 0.05": (["method.reg.peak=0.05"], (0.25, 0.55), 0.93),
    "adamw 5e-3 0.3": (["method.reg.peak=0.3", "optimizer=adamw", "optimizer.lr=5e-3"], (0.0, 0.03), 0.97),
    "adamw 2e-2 0.01": (["method.reg.peak=0.01", "optimizer=adamw", "optimizer.lr=2e-2"], (0.08, 0.35), 0.97),
}
"""Overrides, bounds of the neuron sparsity, least test accuracy."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKE)
def test_digits_lose_as_many_units_as_is_known(tmp_path, name):
    overrides, (low, high), least = SMOKE[name]
    log = tmp_path / "log.txt"
    momentum = ["scheduler.schedule.cycle_momentum=false"] if "adamw" in name else []
    command = ["experiment=demp/digits_smoke", *overrides, *momentum, f"paths.output_dir={tmp_path}/out"]
    assert train(command, log, timeout=280) == 0, log.read_text()
    folder = run_folder(tmp_path / "out")
    final = json.loads((folder / "results.json").read_text())["final"]
    assert low <= final["pruning/neuron_sparsity"] <= high
    assert final["test/accuracy"] >= least
    assert max(event["logit_change"] for event in events(folder)) <= 1e-4
    counts = [sum(event["live"].values()) for event in events(folder)]
    assert counts[0] == 232
    assert counts == sorted(counts, reverse=True)


@pytest.mark.slow
def test_a_stronger_penalty_leaves_no_more_units(tmp_path):
    log = tmp_path / "log.txt"
    command = [
        "hydra.mode=MULTIRUN",
        "experiment=demp/digits_smoke",
        "method.reg.peak=0.02,0.05,0.1",
        f"paths.output_dir={tmp_path}/out",
    ]
    assert train(command, log, timeout=290) == 0, log.read_text()
    found = {}
    for path in (tmp_path / "out").glob("*/seed0/results.json"):
        peak = float((path.parent / "config.yaml").read_text().split("peak: ")[1].split()[0])
        found[peak] = json.loads(path.read_text())["final"]["pruning/neuron_sparsity"]
    sparsities = [found[peak] for peak in sorted(found)]
    assert len(sparsities) == 3
    assert all(later >= earlier - 0.02 for earlier, later in pairwise(sparsities))
    assert sparsities[-1] > sparsities[0] + 0.1
