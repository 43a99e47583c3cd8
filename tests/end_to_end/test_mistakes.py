"""Mistakes in a user's own files and command lines: one message with cause and fix, exit code 2, nothing written."""

import os
from pathlib import Path

import pytest

from tests.end_to_end.harness import train

METHOD = "conf/method/mine.yaml"
MODULE = "mine.py"
MINE = "name: mine\n_target_: mine.Mine\n"
ERM = "from robustlab.methods.erm import ERM\n"
SGD = "_target_: torch.optim.SGD\nlr: 0.1\n"

Files = dict[str, str | bytes]
Row = tuple[Files, list[str], list[str]]

YAML: dict[str, Row] = {
    "indentation": (
        {METHOD: "name: mine\n  _target_: mine.Mine\n"},
        ["method=mine"],
        ["conf/method/mine.yaml", "line 2", "cannot be read as YAML"],
    ),
    "tab": ({METHOD: "name: mine\nnested:\n\ta: 1\n"}, ["method=mine"], ["mine.yaml", "line 3", "tab"]),
    "duplicate key": (
        {METHOD: MINE + "name: again\n"},
        ["method=mine"],
        ["mine.yaml", "line 3", "duplicate key 'name'"],
    ),
    "not UTF-8": ({METHOD: "name: m\xfcne\n".encode("latin-1")}, ["method=mine"], ["mine.yaml", "UTF-8"]),
    "a list": (
        {METHOD: "- 1\n- 2\n"},
        ["method=mine"],
        ["method: expected a group with the keys name, _target_, values_for, label, reference, got [1, 2]"],
    ),
    "a word": ({METHOD: "mine\n"}, ["method=mine"], ["method._target_: missing"]),
    "unclosed bracket": ({METHOD: "name: [a\n"}, ["method=mine"], ["mine.yaml", "cannot be read as YAML"]),
    "in a sweep": ({METHOD: "name: [a\n"}, ["-m", "method=mine,erm"], ["mine.yaml", "cannot be read as YAML"]),
    "as an experiment": (
        {"conf/experiment/mine.yaml": "# @package _global_\nseed: 1\n  x: 2\n"},
        ["experiment=mine"],
        ["experiment/mine.yaml", "line 3"],
    ),
    "a broken reference in a file": (
        {"conf/experiment/mine.yaml": "# @package _global_\nseed: ${trainer.epoch}\n"},
        ["experiment=mine"],
        ["seed: ", "trainer.epoch", "did you mean 'trainer.epochs'"],
    ),
}

TARGETS: dict[str, Row] = {
    "module that imports what is not there": (
        {METHOD: MINE, MODULE: "import not_installed_here\n" + ERM + "class Mine(ERM): ...\n"},
        ["method=mine"],
        ["_target_ mine.Mine", "ModuleNotFoundError: No module named 'not_installed_here'"],
    ),
    "module with a syntax error": (
        {METHOD: MINE, MODULE: "class Mine(\n"},
        ["method=mine"],
        ["method._target_", "mine.Mine", "SyntaxError"],
    ),
    "module that fails when it is imported": (
        {METHOD: MINE, MODULE: ERM + "1 / 0\nclass Mine(ERM): ...\n"},
        ["method=mine"],
        ["mine.Mine", "ZeroDivisionError"],
    ),
    "class that is not a method": (
        {METHOD: MINE, MODULE: "class Mine:\n    def loss(self, batch, position): ...\n"},
        ["method=mine"],
        ["method._target_: mine.Mine", "robustlab.engine.method.Method"],
    ),
    "method that lacks predict": (
        {METHOD: MINE, MODULE: "from robustlab.engine.method import Method\nclass Mine(Method): ...\n"},
        ["method=mine"],
        ["mine.Mine", "predict"],
    ),
    "constructor that fails": (
        {METHOD: MINE, MODULE: ERM + "class Mine(ERM):\n    def __init__(self):\n        raise TypeError('oh no')\n"},
        ["method=mine"],
        ["mine.Mine", "TypeError: oh no"],
    ),
    "function for a method": (
        {},
        ["method=erm", "method._target_=os.system"],
        ["method._target_: os.system", "Method"],
    ),
    "function for a model": (
        {},
        ["method=erm", "model._target_=os.system"],
        ["model._target_: os.system must take the argument"],
    ),
    "function for an optimizer": (
        {},
        ["method=erm", "optimizer._target_=os.system"],
        ["optimizer._target_: os.system"],
    ),
    "function for a source": ({}, ["method=erm", "dataset.source._target_=os.getcwd"], ["DataSource"]),
    "function for noise": ({}, ["method=erm", "noise.model._target_=os.getcwd", "noise=symmetric"], ["NoiseModel"]),
    "function for a transform": (
        {},
        ["method=erm", "+dataset.views.weak=[{_target_: os.getcwd}]"],
        ["dataset.views.weak[0]._target_: os.getcwd", "Transform"],
    ),
    "optimizer for a method": (
        {},
        ["method=erm", "method._target_=torch.optim.SGD", "~method.label_smoothing"],
        ["method._target_: torch.optim.SGD", "Method"],
    ),
    "loss function for a model": ({}, ["method=erm", "model._target_=torch.nn.CrossEntropyLoss"], ["model._target_"]),
    "optimizer without _partial_": (
        {"conf/optimizer/mine.yaml": SGD},
        ["method=erm", "optimizer=mine"],
        ["optimizer._partial_", "add `_partial_: true`"],
    ),
    "schedule without its group": (
        {"conf/scheduler/mine.yaml": "_target_: torch.optim.lr_scheduler.StepLR\n_partial_: true\nstep_size: 3\n"},
        ["method=erm", "scheduler=mine"],
        ["scheduler", "schedule:"],
    ),
    "schedule without _partial_": (
        {"conf/scheduler/mine.yaml": "interval: epoch\nschedule: {_target_: timm.scheduler.StepLRScheduler}\n"},
        ["method=erm", "scheduler=mine"],
        ["scheduler.schedule._partial_", "add `_partial_: true`"],
    ),
    "optimizer for a schedule": (
        {},
        [
            "method=erm",
            "scheduler.schedule._target_=torch.optim.SGD",
            "~scheduler.schedule.T_max",
            "~scheduler.schedule.eta_min",
        ],
        ["scheduler.schedule._target_"],
    ),
}

LOSSES: dict[str, Row] = {
    name: (
        {
            METHOD: MINE,
            MODULE: f"{ERM}class Mine(ERM):\n    def loss(self, batch, position):\n        return {value}\n",
        },
        ["method=mine", "noise=none"],
        ["mine.Mine", "loss", expected],
    )
    for name, value, expected in (
        ("loss that is a number", "0.5", "it returned 0.5"),
        ("loss that is a number in a dict", "{'loss': 0.5}", "'loss' is 0.5"),
        ("loss without its key", "{'los': batch.images.sum()}", "no 'loss'"),
        ("loss that is None", "None", "it returned None"),
        ("loss that is a vector", "{'loss': self.learners['network'](batch.images)[:, 0]}", "shape"),
        ("loss without a gradient", "{'loss': batch.images.sum()}", "gradient"),
    )
}

EXPERIMENTS: dict[str, Row] = {
    "without its package": (
        {"conf/experiment/mine.yaml": "seed: 3\n"},
        ["experiment=mine"],
        ["experiment", "`# @package _global_` as its first line"],
    ),
    "overrides without its package": (
        {"conf/experiment/mine.yaml": "defaults:\n  - override /method: erm\nseed: 3\n"},
        ["experiment=mine"],
        ["experiment", "`# @package _global_` as its first line"],
    ),
    "added": (
        {"conf/experiment/mine.yaml": "# @package _global_\nseed: 3\n"},
        ["+experiment=mine"],
        ["+experiment=mine", "write experiment=mine"],
    ),
    "two of them with clashing groups": (
        {
            "conf/experiment/a.yaml": "# @package _global_\ndefaults:\n  - override /method: erm\n",
            "conf/experiment/b.yaml": "# @package _global_\ndefaults:\n  - override /method: elr\n",
        },
        ["experiment=[a,b]"],
        ["experiment=[a,b]", "method"],
    ),
    "override of no group": (
        {"conf/experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /metod: erm\n"},
        ["experiment=mine"],
        ["metod"],
    ),
    "option that is not there": (
        {"conf/experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /method: emr\n"},
        ["experiment=mine"],
        ["method=emr", "did you mean 'erm'"],
    ),
    "group without override": (
        {"conf/experiment/mine.yaml": "# @package _global_\ndefaults:\n  - /method: erm\n"},
        ["experiment=mine"],
        ["override /method"],
    ),
    "key that is not there": (
        {"conf/experiment/mine.yaml": "# @package _global_\ntrainer:\n  epoch: 3\n"},
        ["experiment=mine"],
        ["trainer has no key 'epoch'; did you mean 'epochs'?"],
    ),
}

REFERENCES: dict[str, Row] = {
    "to a key that is not there": (
        {},
        ["method=erm", "trainer.epochs=${nothing}"],
        ["trainer.epochs: Interpolation key 'nothing' not found"],
    ),
    "of the run folder": (
        {},
        ["method=erm", "paths.output_dir=${nothing}"],
        ["paths.output_dir: Interpolation key 'nothing'"],
    ),
    "to an environment variable": (
        {},
        ["method=erm", "name=${oc.env:NOT_SET_HERE}"],
        ["name: ", "NOT_SET_HERE"],
    ),
    "to a resolver that is not there": ({}, ["method=erm", "name=${nothing:x}"], ["name: ", "nothing"]),
    "to itself": ({}, ["method=erm", "name=${name}"], ["name: "]),
    "in the name of a run": ({}, ["method=erm", "method.name=${nothing}"], ["method.name: Interpolation key"]),
    "to each other": ({}, ["method=erm", "seed=${trainer.epochs}", "trainer.epochs=${seed}"], ["trainer.epochs: "]),
    "in tags": ({}, ["method=erm", "tags=[${nothing}]"], ["tags[0]: Interpolation key 'nothing' not found"]),
    "in Hydra's own settings": ({}, ["method=erm", "hydra.job.name=${nothing}"], ["hydra.job.name=${nothing}"]),
    "through a group": (
        {},
        ["method=erm", "optimizer.lr=${method.lr}"],
        ["optimizer.lr: Interpolation key 'method.lr'"],
    ),
}

ROWS = {
    f"{title}: {name}": row
    for title, rows in (
        ("YAML", YAML),
        ("target", TARGETS),
        ("experiment", EXPERIMENTS),
        ("reference", REFERENCES),
    )
    for name, row in rows.items()
}


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ROWS)
def test_one_line_names_cause_and_fix(name, tmp_path):
    place = tmp_path / "place"
    before = mistake(ROWS[name], place, tmp_path / "log.txt")
    assert written(place) == before


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_cannot_be_trained_on_is_told_at_the_first_step(name, tmp_path):
    mistake(LOSSES[name], tmp_path / "place", tmp_path / "log.txt")


def mistake(row: Row, place: Path, log: Path) -> list[str]:
    """Make the mistake in a folder and check what is said; return the files that were there before."""
    files, command, fragments = row
    (place / "conf").mkdir(parents=True)
    for path, content in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = written(place)
    code = train(["--config-dir", str(place / "conf"), *command, "trainer.max_steps=1"], log, before=Change(place))
    text = log.read_text()
    assert code == 2, text
    assert "Traceback" not in text
    assert text.count("train: ") == 1, text
    for fragment in fragments:
        assert fragment in text
    return before


class Change:
    """Makes a folder the current one; picklable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> None:
        import sys

        os.chdir(self.folder)
        sys.dont_write_bytecode = True


def test_advice_on_the_size_of_images_works_when_followed(tmp_path):
    """What the message says is added to the command, which then trains."""
    (tmp_path / "conf").mkdir()
    command = ["method=erm", "dataset=digits", "model=vit_b16", "dataset.subset=64", "trainer.max_steps=1"]
    small = [f"+model.options.{text}" for text in ("depth=1", "embed_dim=12", "num_heads=2")]
    outputs = [f"paths.output_dir={tmp_path}/outputs"]
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    assert train([*command, *small, *outputs], first) == 2
    advice = first.read_text().partition("; set ")[2].split()
    assert advice
    assert all(text.startswith("+model.options.") for text in advice)
    assert train([*command, *small, *advice, *outputs], second) == 0, second.read_text()


def test_more_threads_than_cores(tmp_path):
    log = tmp_path / "log.txt"
    command = ["method=erm", "trainer.threads=100000", f"paths.output_dir={tmp_path}/outputs"]
    assert train(command, log) == 2
    assert f"this machine has {os.cpu_count()} cores" in log.read_text()
    assert not (tmp_path / "outputs").exists()
