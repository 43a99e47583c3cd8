"""Wrong command lines: each one clear message on stderr, exit code 2, no traceback, nothing run and nothing written."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from robustlab.train import main

WRONG = {
    "misspelt key": (["trainer.epoch=3"], "trainer has no key 'epoch'; did you mean 'epochs'?"),
    "misspelt key with +": (["+trainer.epoch=3"], "trainer has no key 'epoch'; did you mean 'epochs'?"),
    "misspelt key with ++": (["++trainer.epoch=3"], "trainer has no key 'epoch'; did you mean 'epochs'?"),
    "misspelt argument": (["+optimizer.momentun=0.9"], "SGD has no argument 'momentun'; did you mean 'momentum'?"),
    "misspelt nested argument": (["method.warmup.epoch=3"], "has no argument 'epoch'; did you mean 'epochs'?"),
    "key in the wrong place": (["lr=0.1"], "did you mean 'optimizer.lr'?"),
    "misspelt group": (["datset=cifar10"], "did you mean 'dataset'?"),
    "misspelt nested group": (
        ["hydra/launchr=basic"],
        "there is no group 'hydra/launchr'; did you mean 'hydra/launcher'?",
    ),
    "misspelt option": (["dataset=cifr10"], "there is no dataset 'cifr10'; did you mean 'cifar10'?"),
    "misspelt recipe": (["experiment=crosssplit/cifar10_sim50"], "did you mean 'crosssplit/cifar10_sym50'?"),
    "no such option": (["optimizer=xyz"], "there is no optimizer 'xyz'; there is adam, adamw"),
    "null for an option": (["scheduler=null"], "there is no scheduler 'null'; did you mean 'none'?"),
    "number for an option": (["method=5"], "there is no method '5'; there is co_teaching, "),
    "null for an option, only looking": (["--cfg", "job", "method=null"], "there is no method 'null'"),
    "part of recipes for a recipe": (["experiment=crosssplit"], "did you mean 'crosssplit/cifar"),
    "letters that need quotes": (["paths.output_dir=mü ö"], "\"paths.output_dir='mü ö'\""),
    "empty folder": (["paths.output_dir="], "expected a path, not empty"),
    "no such main file": (["--config-name", "foo"], "in your config search path.\n"),
    "option that leads out of conf": (["dataset=../model/mlp"], "not a path that leads out of it"),
    "word for a number": (["optimizer.lr=fast"], "optimizer.lr: expected a number > 0 or null, got 'fast'"),
    "word for a seed": (["seed=abc"], "seed: expected a whole number >= 0"),
    "empty seed": (["seed="], "seed: expected a whole number >= 0"),
    "infinite seed": (["seed=1e400"], "seed: expected a whole number >= 0"),
    "negative learning rate": (["optimizer.lr=-1"], "optimizer.lr: expected a number > 0"),
    "nan": (["optimizer.weight_decay=nan"], "optimizer.weight_decay: expected a number >= 0"),
    "no epochs": (["trainer.epochs=0"], "trainer.epochs: expected a whole number >= 1"),
    "number for a switch": (["trainer.compile=1"], "trainer.compile: expected true or false, got 1"),
    "unknown choice": (["trainer.precision=fp8"], "trainer.precision: expected one of auto, fp32, bf16, fp16"),
    "contradiction of selection": (["trainer.selection=[best_noisy_val]"], "set dataset.val_fraction"),
    "contradiction of device": (["trainer.precision=fp16", "trainer.device=cpu"], "fp16 does not train on the CPU"),
    "contradiction of warm-up": (["method.warmup.epochs=99"], "use up all of trainer.epochs=60"),
    "noise of another data set": (["noise=cifar10n"], "defined on the classes of cifar10, not on dataset=digits"),
    "Hydra's folder": (["hydra.run.dir=elsewhere"], "paths.output_dir=<folder>"),
    "run folder outside": (["paths.run_dir=../x"], "is not inside paths.output_dir"),
    "mandatory value": (["noise=file"], "noise.model.file: required but not set; add noise.model.file=<value>"),
    "no such class": (["method._target_=robustlab.methods.erm.ERN"], "has no 'ERN'; did you mean 'ERM'?"),
    "no such module": (["optimizer._target_=torch.optin.SGD"], "no module 'torch.optin'; did you mean 'optim'?"),
    "broken reference": (["name=${nothing}"], "name: Interpolation key 'nothing' not found"),
    "broken syntax": (["tags=[a"], "'tags=[a' cannot be read as key=value"),
    "no setting at all": (["cifar10"], "'cifar10' is not a setting; write key=value"),
    "sweep without -m": (["seed=0,1"], "add -m to run each of them"),
    "adding what is there": (["+seed=1"], "An item is already at 'seed'"),
    "deleting what is not there": (["~nothing"], "'nothing' does not exist"),
    "no such comparison": (["compare=emr"], "there is no method 'emr'; did you mean 'erm'"),
    "no such folder": (["--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
    "resolve without cfg": (["--resolve"], "train --cfg job --resolve"),
    "two modes": (["--cfg", "job", "-m"], "choose one of"),
    "no such package": (
        ["--cfg", "job", "--package", "optimiser"],
        "--package optimiser: the configuration has no such group",
    ),
    "sweep over nothing": (
        ["-m", "method=glob(zz*)"],
        "no values, so the sweep has no points; there is",
    ),
    "null in a sweep": (["-m", "method=erm,null"], "there is no method 'null'"),
    "misspelt key in a sweep": (["-m", "sede=0,1"], "did you mean 'seed'?"),
    "one wrong point of a sweep": (["-m", "method=erm,crossplit"], "did you mean 'crosssplit'? (in the point"),
    "one wrong value of a sweep": (["-m", "trainer.epochs=20,0", "seed=0,1"], "in the point trainer.epochs=0 seed=0"),
    "setting as a flag": (["--seed=3"], "--seed=3: settings are written without dashes, seed=3 (in a W&B sweep, with"),
    "setting as a flag and a word": (
        ["--epochs", "5"],
        "--epochs 5: settings are written without dashes, trainer.epochs=5",
    ),
    "setting as a flag, negative": (["--lr", "-0.1"], "without dashes, optimizer.lr=-0.1"),
    "setting of the method as a flag": (["--forget-rate=0.3", "method=co_teaching"], "dashes, method.forget_rate=0.3"),
    "group as a flag": (["--dataset", "cifar10"], "without dashes, dataset=cifar10"),
    "end of a key as a flag": (["--warmup.epochs=3"], "without dashes, method.warmup.epochs=3"),
    "misspelt setting as a flag": (["--trainer.epoch=3"], "without dashes, trainer.epochs=3"),
    "flag without dashes in its value": (["-seed=3"], "without dashes, seed=3"),
    "two settings as flags": (["--seed=3", "--epochs=5"], "2 problems in the configuration"),
    "misspelt flag": (["--hlp"], "unknown flag --hlp; did you mean '--help'?"),
    "flag with an underscore": (["--config_dir=x"], "did you mean '--config-dir'?"),
    "shortened flag": (["--multi", "seed=0,1"], "unknown flag --multi; did you mean '--multirun'?"),
    "flag of nothing": (["--xyzzy"], "unknown flag --xyzzy; settings are written key=value"),
    "flag without its value": (["--cfg"], "argument --cfg/-c: expected one argument"),
    "flag with a wrong value": (["--cfg", "jobs"], "invalid choice: 'jobs' (choose from "),
    "Hydra's folder, not yet known": (
        ["-m", "hydra.sweep.subdir=${hydra.job.num}", "seed=0,1"],
        "hydra.sweep.subdir has no effect",
    ),
    "Hydra's folder, broken": (["-m", "hydra.sweep.dir=${x}", "seed=0,1"], "hydra.sweep.dir: Interpolation key 'x'"),
    "Hydra's name, broken": (["hydra.job.name=${x}"], "hydra.job.name=${x}: Interpolation key 'x' not found"),
    "null among options": (["experiment=[null]"], "there is no experiment 'null'"),
    "value without a key": (["=5"], "'=5': no key before the '='"),
    "two things at once": (["seed=abc", "+trainer.epoch=3"], "2 problems in the configuration"),
}


@pytest.fixture
def runs(monkeypatch, tmp_path) -> list[str]:
    """The overrides of what was run, with a stub in the place of the engine; the current folder is an empty one."""
    started: list[str] = []
    engine = types.ModuleType("robustlab.engine.run")
    engine.run = lambda cfg, overrides, **_: started.append(" ".join(overrides)) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "robustlab.engine.run", engine)
    monkeypatch.chdir(tmp_path)
    return started


@pytest.mark.parametrize("name", WRONG)
def test_one_clear_message(name, runs, capsys, tmp_path):
    arguments, expected = WRONG[name]
    code = main(arguments)
    written = capsys.readouterr()
    assert code == 2
    assert expected in written.err
    assert written.err.startswith("train: ")
    assert written.err.count("train: ") == 1
    assert "Traceback" not in written.err
    assert written.out == ""
    assert runs == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(runs, capsys, tmp_path):
    (tmp_path / "file").write_text("kept")
    assert main(["paths.output_dir=file"]) == 4
    assert main(["-m", "paths.output_dir=file", "seed=0,1"]) == 4
    assert "is a file, not a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(runs, capsys, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["paths.output_dir=locked/x"]) == 4
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["method=erm", "-m", "seed=0,1"],
        ["-m", "method=erm", "seed=0,1"],
        ["method=erm", "seed=0,1", "--multirun"],
        ["method=erm", "--config-dir", ".", "-m", "seed=0,1"],
    ],
)
def test_flags_may_stand_anywhere_among_the_overrides(arguments, runs, tmp_path):
    assert main(arguments) == 0
    assert runs == ["method=erm seed=0", "method=erm seed=1"]


def test_a_setting_as_a_flag_is_looked_up_in_what_the_rest_composes(runs, capsys):
    assert main(["--forget-rate", "0.3", "method=erm"]) == 2
    assert "unknown flag --forget-rate" in capsys.readouterr().err


def program(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"""
import sys
from robustlab.train import main
code = main({arguments!r})
heavy = [name for name in ("torch", "torchvision", "timm", "wandb", "numpy", "sklearn") if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else code)
"""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["misspelt argument", "no such class", "one wrong point of a sweep", "broken syntax"])
def test_errors_are_told_without_importing_torch(name, tmp_path):
    arguments, expected = WRONG[name]
    done = program(arguments, tmp_path)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--info", "all"]])
def test_looking_imports_no_torch_and_writes_nothing(arguments, tmp_path):
    done = program(arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 1000
    assert list(tmp_path.iterdir()) == []


def test_as_a_command(tmp_path):
    command = Path(sys.executable).with_name("train")
    done = subprocess.run([command, "optimizer.lr=fast"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "train: optimizer.lr: expected a number > 0 or null, got 'fast'\n"
    assert list(tmp_path.iterdir()) == []
