"""A run's network in two files: the same logits, the smaller widths, and one message for whatever is wrong."""

import hashlib
import json
import pickle
import shutil
from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import load_file

from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.engine.checkpoint import Checkpoints
from robustlab.engine.learner import Learner
from robustlab.engine.loop import _weights
from robustlab.export.exported_network import load_pruned
from robustlab.export.run_export import export_run
from robustlab.methods.erm import ERM
from robustlab.models.resnet import resnet_small
from robustlab.models.units import units_of
from robustlab.pruning.cost import parameters
from tests.pruning.surgical import images, some_dead
from tests.report.test_report import script_at

MODEL = {
    "name": "resnet_small",
    "_target_": "robustlab.models.resnet.resnet_small",
    "widths": [8, 16],
    "blocks": [2, 1],
    "proj_dim": None,
}
TASK = {"num_classes": 5, "image_shape": [1, 8, 8], "mean": [0.5], "std": [0.25], "class_names": ["a", "b"]}
BATCH = images(32, 1, 8, 8)


def train(learner, steps):
    for step in range(steps):
        loss = learner(images(8, 1, 8, 8, seed=step)).square().mean()
        learner.step(loss)


def make_learner(*, ema=None, residual="per_block", round_to=1, proj_dim=None, channels_last=False):
    """A learner that trained, lost a third of its units, and trained on."""
    torch.manual_seed(0)
    network = resnet_small(num_classes=5, image_shape=(1, 8, 8), widths=[8, 16], blocks=[2, 1], proj_dim=proj_dim)
    runtime = Runtime(torch.device("cpu"), channels_last=channels_last)
    learner = Learner(network, runtime=runtime, optimizer=partial(torch.optim.SGD, lr=0.05), ema_decay=ema)
    units = units_of(network).in_mode(residual)
    learner.attach_surgeon(units, round_to=round_to)
    train(learner, 3)
    learner.remove(some_dead(units))
    train(learner, 3)
    return learner


def make_run(folder, *learners):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": MODEL, "seed": 3}))
    (folder / "task.json").write_text(json.dumps(TASK))
    states = {f"network{number or ''}": one.state_dict() for number, one in enumerate(learners)}
    Checkpoints(folder / "checkpoints").save({"learners": states})
    return folder


def logits(network):
    with torch.no_grad():
        return network.eval()(BATCH)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema": 0.5},
        {"residual": "stage_shared"},
        {"residual": "inner_only", "ema": 0.5},
        {"round_to": 4, "proj_dim": 6},
        {"channels_last": True},
    ],
    ids=str,
)
def test_logits_are_those_of_the_run(tmp_path, options):
    learner = make_learner(**options)
    exported = export_run(make_run(tmp_path / "run", learner), tmp_path / "out")
    network = load_pruned(tmp_path / "out")
    assert not any(module.training for module in network.modules())
    assert torch.equal(logits(network), logits(learner.inference_network))
    assert torch.equal(logits(exported.network), logits(learner.inference_network))
    assert parameters(network) == parameters(learner.network) < parameters(exported.dense)
    surgeon, about = learner.surgeon, exported.description
    assert about["residual"] == options.get("residual", "per_block")
    assert about["neuron_sparsity"] == pytest.approx(surgeon.neuron_sparsity())
    assert about["units"] == {name: live.tolist() for name, live in surgeon.live.items()}


def test_what_is_written(tmp_path):
    learner = make_learner()
    export_run(make_run(tmp_path / "outputs" / "demp-digits-1a2b3c4d" / "seed3", learner), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.safetensors"]
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["model"] == MODEL
    assert (about["num_classes"], about["image_shape"], about["class_names"]) == (5, [1, 8, 8], ["a", "b"])
    assert about["normalisation"] == {"mean": [0.5], "std": [0.25]}
    assert about["weight_sparsity"] == 1 - about["parameters"] / about["dense_parameters"]
    assert about["run"] == {"name": "demp-digits-1a2b3c4d", "seed": 3, "weights": "last", "network": "network"}
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    state = learner.network.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], value) for name, value in state.items())


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_weights_that_a_selection_rule_kept(tmp_path, ema):
    learner = make_learner(ema=ema)
    folder = make_run(tmp_path / "run", learner)
    method = ERM()
    method.learners = {"network": learner}
    Checkpoints(folder / "checkpoints").save_weights("best_test", _weights(method))
    then = logits(learner.inference_network)
    train(learner, 2)
    export_run(folder, tmp_path / "out", weights="best_test")
    assert torch.equal(logits(load_pruned(tmp_path / "out")), then)
    with pytest.raises(ConfigError, match=r"has no mean\.pt; there are: best_test, last"):
        export_run(folder, tmp_path / "out", weights="mean")


def test_one_of_several_networks(tmp_path):
    first, second = make_learner(), make_learner(residual="inner_only")
    folder = make_run(tmp_path / "run", first, second)
    export_run(folder, tmp_path / "out", learner="network1")
    assert torch.equal(logits(load_pruned(tmp_path / "out")), logits(second.network))
    with pytest.raises(ConfigError, match=r"several networks: choose one with --network network\|network1"):
        export_run(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"has no network 'network2'"):
        export_run(folder, tmp_path / "out", learner="network2")


def test_a_network_that_lost_nothing(tmp_path):
    torch.manual_seed(0)
    network = resnet_small(num_classes=5, image_shape=(1, 8, 8), widths=[8, 16], blocks=[2, 1])
    learner = Learner(network, runtime=Runtime(torch.device("cpu")), optimizer=partial(torch.optim.SGD, lr=0.05))
    about = export_run(make_run(tmp_path / "run", learner), tmp_path / "out").description
    assert (about["neuron_sparsity"], about["weight_sparsity"], about["units"]) == (0, 0, {})
    assert torch.equal(logits(load_pruned(tmp_path / "out")), logits(network))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run and its export, to be copied."""
    folder = tmp_path_factory.mktemp("whole")
    export_run(make_run(folder / "run", make_learner()), folder / "out")
    return folder


@pytest.fixture
def exported(whole_run, tmp_path):
    return shutil.copytree(whole_run / "out", tmp_path / "out")


@pytest.fixture
def run(whole_run, tmp_path):
    return shutil.copytree(whole_run / "run", tmp_path / "run")


def rewrite(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


def pickled(folder):
    content = pickle.dumps({"weight": 1})
    (folder / "model.safetensors").write_bytes(content)
    rewrite(folder, sha256=hashlib.sha256(content).hexdigest())


def other_units(folder, change):
    units = json.loads((folder / "model.json").read_text())["units"]
    change(units)
    rewrite(folder, units=units)


SPOILS = {
    "no json": (lambda folder: (folder / "model.json").unlink(), r"model\.json cannot be read"),
    "half a json": (lambda folder: (folder / "model.json").write_text("{"), r"model\.json is damaged"),
    "another json": (lambda folder: (folder / "model.json").write_text("[1]"), "is not such a file"),
    "another format": (lambda folder: rewrite(folder, format="x-2"), "has the format 'x-2'"),
    "no tensors": (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors cannot be read"),
    "cut short": (cut_short, "is damaged, or not the file"),
    "a flipped bit": (flip, "is damaged, or not the file"),
    "a pickle": (pickled, "is not a safetensors file"),
    "no model": (lambda folder: rewrite(folder, model=3), "names no model"),
    "another width": (lambda folder: rewrite(folder, model=MODEL | {"widths": [8, 4]}), "units"),
    "other classes": (lambda folder: rewrite(folder, num_classes=7), "does not match the network"),
    "unit twice": (
        lambda folder: other_units(folder, lambda units: units["stem"].insert(0, units["stem"][0])),
        "lists of units",
    ),
    "unit unknown": (lambda folder: other_units(folder, lambda units: units["stem"].append(99)), "units"),
    "no unit": (lambda folder: other_units(folder, lambda units: units["stem"].clear()), "lists of units"),
    "words for units": (lambda folder: rewrite(folder, units={"stem": ["a"]}), "lists of units"),
    "another set": (lambda folder: other_units(folder, lambda units: units.pop("stem")), "units"),
    "another mode": (lambda folder: rewrite(folder, residual="other"), "residual"),
    "an unknown argument": (lambda folder: rewrite(folder, model=MODEL | {"wide": 1}), "wide"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_spoilt_files_give_one_message(exported, name):
    spoil, message = SPOILS[name]
    spoil(exported)
    with pytest.raises(ConfigError, match=message):
        load_pruned(exported)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "robustlab.config.build.build",
        "robustlab.models.external.torch.load",
        "robustlab.models.weights.pickle.loads",
        "robustlab.models.nothing.here",
    ],
)
def test_only_constructors_of_models_are_called(exported, target):
    rewrite(exported, model={"_target_": target})
    with pytest.raises(ConfigError, match=r"is refused|there is no"):
        load_pruned(exported)
    rewrite(exported, model=MODEL | {"widths": {"_target_": target}})
    with pytest.raises(ConfigError, match=r"is refused|there is no"):
        load_pruned(exported)


def test_references_are_refused(exported):
    rewrite(exported, model=MODEL | {"widths": "${oc.env:HOME}"})
    with pytest.raises(ConfigError, match="refers to something outside"):
        load_pruned(exported)


def test_the_script(run, tmp_path, capsys):
    code, out, err = script_at("export.py", capsys, run, "--latency", "--batch-sizes", 1, 2)
    assert (code, err) == (0, "")
    assert out.startswith(f"{run / 'export'}: ")
    assert "weight sparsity" in out
    measured = json.loads((run / "export" / "latency.json").read_text())["latency"]
    assert [(one["batch_size"], one["dtype"], one["device"]) for one in measured] == [
        (1, "float32", "cpu"),
        (2, "float32", "cpu"),
    ]
    assert isinstance(load_pruned(run / "export"), torch.nn.Module)
    assert script_at("export.py", capsys, run, "--out", tmp_path / "there")[0] == 0
    assert (tmp_path / "there" / "model.json").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--device", "cuda:99"], "--device cuda:99, but"),
        (["--device", "gpu"], "torch has no such device; use cpu, cuda or cuda:<n>"),
        (["--threads", "0"], "expected a whole number >= 1, got '0'"),
        (["--threads", "100000"], "100000 threads, but this machine has"),
        (["--batch-sizes", "1", "-2"], "expected a whole number >= 1, got '-2'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(run, capsys, option, message):
    try:
        code, _, error = script_at("export.py", capsys, run, "--latency", *option)
    except SystemExit as refusal:  # argparse's
        code, error = refusal.code, capsys.readouterr().err
    assert code == 2
    assert message in error
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "is not a run folder"),
        (lambda run: (run / "task.json").unlink(), r"task\.json cannot be read"),
        (lambda run: (run / "checkpoints" / "last.pt").unlink(), r"has no last\.pt; there are: none"),
        (lambda run: (run / "checkpoints" / "last.pt").write_bytes(b"nothing"), "cannot be read"),
        (lambda run: (run / "checkpoints" / "last.pt").write_bytes(pickle.dumps({"a": 1})), "cannot be read"),
        (lambda run: torch.save([1, 2], run / "checkpoints" / "last.pt"), "contains no networks"),
        (lambda run: torch.save({"learners": {"a": 1}}, run / "checkpoints" / "last.pt"), "contains no networks"),
    ],
)
def test_the_script_refuses_what_is_no_run(run, tmp_path, capsys, spoil, message):
    spoil(run)
    code, out, err = script_at("export.py", capsys, run)
    assert (code, out) == (2, "")
    assert err.startswith("export: ")
    assert err.count("\n") == 1
    with pytest.raises(ConfigError, match=message):
        export_run(run, tmp_path / "out")
