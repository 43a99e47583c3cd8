"""A folder that holds another run: no command takes its result for its own, and each says what differs."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from robustlab.config.compose import compose
from robustlab.config.occupant import refusal
from robustlab.models.small_cnn import small_cnn
from robustlab.train import main
from tests.end_to_end.harness import train

SMALL = [
    "dataset.subset=120", "model.widths=[8,16]", "trainer.batch_size=40", "trainer.threads=1", "trainer.epochs=1",
    "tracker=local",
]  # fmt: skip
ERM = ["method=erm", "noise=symmetric", "compare=null", *SMALL]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The outputs of a run that is finished, in the folder `x`."""
    outputs = tmp_path_factory.mktemp("finished") / "outputs"
    log = outputs.parent / "log.txt"
    assert train([*ERM, f"paths.output_dir={outputs}", f"paths.run_dir={outputs}/x"], log) == 0, log.read_text()
    return outputs


@pytest.fixture
def place(finished, tmp_path, monkeypatch) -> Path:
    """A copy of it, below the current folder."""
    shutil.copytree(finished, tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "x"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


OTHERS = {
    "method": (["method=elr"], "\n  method.name: erm when it was saved, now elr\n"),
    "seed": (["seed=9"], "\n  seed: 0 when it was saved, now 9\n"),
    "model": (["model=mlp", "~model.widths"], "\n  model.name: small_cnn when it was saved, now mlp\n"),
    "one value": (["optimizer.lr=0.2"], "\n  optimizer.lr: 0.05 when it was saved, now 0.2\n"),
    "fewer wrong labels": (["noise.model.rate=0.2"], "\n  noise.model.rate: 0.5 when it was saved, now 0.2\n"),
    "more epochs and a value": (["trainer.epochs=2", "optimizer.lr=0.2"], "\n  trainer.epochs: 1 when it was saved"),
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_a_finished_folder_of_other_settings_is_refused(name, force, place, capsys):
    more, expected = OTHERS[name]
    before = contents(place)
    command = [*ERM, *more, "paths.run_dir=outputs/x"]
    if "~model.widths" in more:
        command = [text for text in command if "widths" not in text]
    assert main([*command, *(["resume=force"] if force else [])]) == 2
    written = capsys.readouterr()
    assert written.err.startswith("train: outputs/x holds a finished run saved with different settings:\n")
    assert expected in written.err
    assert "resume=false" in written.err
    assert written.err.count("\n") <= 8
    assert written.out == ""
    assert contents(place) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("removed", ["record.json", "record.json and results' name", "all that tells"])
def test_a_folder_written_before_its_identity_was_recorded_is_compared_too(removed, force, place, capsys):
    (place / "record.json").unlink()
    results = json.loads((place / "results.json").read_text())
    if removed != "record.json":
        (place / "results.json").write_text(json.dumps({k: v for k, v in results.items() if k != "run_name"}))
    if removed == "all that tells":
        (place / "config.yaml").unlink()
    more = ["resume=force"] if force else []
    for other in (["seed=9"], ["optimizer.lr=0.2"]):
        assert main([*ERM, *other, "paths.run_dir=outputs/x", *more]) == 2
        said = capsys.readouterr().err
        assert ("whose settings are not recorded in any file" if removed == "all that tells" else other[0][:4]) in said
    cfg = compose([*ERM, "paths.run_dir=outputs/x", *more])
    assert (refusal(place, cfg) is None) == (removed != "all that tells")


def test_the_same_run_and_what_does_not_change_it_are_found_finished(place, capsys):
    for more in ([], ["name=other"], ["trainer.threads=2"], ["resume=force"], ["tags=[a]"]):
        assert main([*ERM, *more, "paths.run_dir=outputs/x"]) == 0
        assert "already finished in outputs/x" in capsys.readouterr().err


def test_the_folder_may_be_named_through_a_link(place, capsys):
    Path("outputs/link").symlink_to("x")
    assert main([*ERM, "seed=9", "paths.run_dir=outputs/link"]) == 2
    assert "seed: 0 when it was saved, now 9" in capsys.readouterr().err


def test_resume_false_moves_the_other_run_aside(place, tmp_path):
    log, before = tmp_path / "log.txt", (place / "results.json").read_bytes()
    command = [*ERM, "seed=9", f"paths.output_dir={place.parent}", f"paths.run_dir={place}", "resume=false"]
    assert train(command, log) == 0, log.read_text()
    assert (place.with_name("x.old1") / "results.json").read_bytes() == before
    assert json.loads((place / "results.json").read_text())["seed"] == 9


def test_resume_false_with_a_mistake_leaves_the_run_in_its_place(place, capsys):
    before = contents(place.parent)
    assert main([*ERM, "trainer.batch_size=5000", "paths.run_dir=outputs/x", "resume=false"]) == 2
    assert "lower trainer.batch_size" in capsys.readouterr().err
    assert contents(place.parent) == before


def test_a_begun_folder_of_other_settings_is_refused_without_force(place, capsys):
    (place / "results.json").unlink()
    shutil.rmtree(place / "checkpoints")  # as if it had been stopped before its first checkpoint
    before = contents(place)
    assert main([*ERM, "optimizer.lr=0.2", "paths.run_dir=outputs/x"]) == 2
    said = capsys.readouterr().err
    assert "outputs/x holds a run saved with different settings:\n  optimizer.lr: 0.05 when it was saved" in said
    assert "resume=force" in said
    assert contents(place) == before


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.lr=0.1,0.2", "paths.run_dir=outputs/y"],
        ["seed=0,1", "paths.run_dir=outputs/y"],
        ["optimizer.lr=0.1,0.2", "paths.run_dir=outputs/${seed}"],
        ["seed=0,1", "paths.run_dir=outputs/x,outputs/link"],
    ],
)
def test_points_of_a_sweep_that_share_a_folder_are_refused_before_the_first(overrides, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    Path("outputs/link").symlink_to("x")
    assert main(["-m", *ERM, *overrides]) == 2
    assert "share the folder" in capsys.readouterr().err
    assert [path.name for path in Path("outputs").iterdir()] == ["link"]


def test_points_with_a_folder_each_run(tmp_path):
    log, outputs = tmp_path / "log.txt", tmp_path / "outputs"
    places = [f"paths.output_dir={outputs}", f"paths.run_dir={outputs}/${{seed}}"]
    assert train(["hydra.mode=MULTIRUN", *ERM, "seed=0,1", *places], log) == 0, log.read_text()
    seeds = {path.parent.name: json.loads(path.read_text())["seed"] for path in outputs.glob("*/results.json")}
    assert seeds == {"0": 0, "1": 1}


def test_one_point_in_a_folder_of_another_run_keeps_the_sweep_from_starting(place, capsys):
    shutil.copytree(place, place.parent / "1")
    assert main(["-m", *ERM, "seed=2,1", "paths.run_dir=outputs/${seed}"]) == 2
    said = capsys.readouterr().err
    assert "outputs/1 holds a finished run saved with different settings:\n  seed: 0 when it was saved" in said
    assert not (place.parent / "2").exists()


def test_the_comparison_gets_a_folder_of_its_own(tmp_path):
    log, outputs = tmp_path / "log.txt", tmp_path / "outputs"
    command = ["method=elr", *SMALL, f"paths.output_dir={outputs}", f"paths.run_dir={outputs}/x", "compare=erm"]
    assert train(command, log) == 0, log.read_text()
    found = {path.parent: json.loads(path.read_text())["method"] for path in outputs.rglob("results.json")}
    assert found.pop(outputs / "x") == "elr"
    assert list(found.values()) == ["erm"]
    assert "paths.run_dir" not in log.read_text().partition("More seeds")[2]


def save_weights(path: Path, seed: int) -> None:
    """Write the weights of the network of `SMALL`, drawn with a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(small_cnn(num_classes=10, image_shape=(1, 8, 8), widths=(8, 16)).state_dict(), path)


def test_a_folder_whose_run_began_from_another_file_of_that_name_is_refused(tmp_path):
    file, log, outputs = tmp_path / "start.pth", tmp_path / "log.txt", tmp_path / "outputs"
    command = [*ERM, f"paths.output_dir={outputs}", f"model.weights={file}"]
    save_weights(file, 0)
    assert train(command, log) == 0, log.read_text()
    (folder,) = (path.parent for path in outputs.glob("*/seed0/results.json"))
    before, first = contents(folder), file.read_bytes()
    save_weights(file, 1)
    for more in ([], ["resume=force"], ["trainer.epochs=2", "resume=force", f"paths.run_dir={folder}"]):
        log.unlink()
        assert train([*command, *more], log) == 2
        assert "model.weights: the file had the content" in log.read_text()
        assert contents(folder) == before
    file.write_bytes(first)
    assert train(command, log) == 0
    assert "already finished" in log.read_text()
    file.unlink()  # what the run began from need not be kept
    log.unlink()
    assert train(command, log) == 0
    assert "already finished" in log.read_text()

    (folder / "results.json").unlink()  # as if it had died before its end was written
    save_weights(file, 1)
    assert train(command, log) == 2
    assert train([*command, "resume=force"], log) == 0, log.read_text()
    (forced,) = json.loads((folder / "results.json").read_text())["forced"]
    assert forced.startswith("model.weights: the file had the content")
