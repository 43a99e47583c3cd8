"""Checkpoints that are damaged or of another run: found, named, and never a reason to start over silently."""

import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from robustlab.core import tensor_files
from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.engine import checkpoint
from robustlab.engine.checkpoint import Checkpoints, read_checked
from tests.end_to_end.harness import assert_same_run, run_folder, start, train
from tests.faults.injectors import kill, on_call, replace
from tests.faults.subjects import arguments


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((300,), float(step)), "names": ["a", "b"], "rate": 0.5}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _hole(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": _flip,
    "hole": _hole,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"not a checkpoint"),
    "folder": _folder,
}


@pytest.fixture
def saved(tmp_path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    return checkpoints


@pytest.mark.fault("F8")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_the_previous_checkpoint_used(saved, damage):
    DAMAGES[damage](saved.last)
    loaded, warnings = saved.load()
    assert loaded is not None
    assert loaded["step"] == 1
    assert len(warnings) == 1
    assert "last.pt cannot be read" in warnings[0]
    assert "renamed to last.damaged, falling back to the previous checkpoint" in warnings[0]


def trusting(path: Path) -> dict:
    """The negative control: torch.load alone."""
    return torch.load(path, weights_only=True)


@pytest.mark.fault("F8", control=True)
def test_damage_control_torch_load_alone_takes_wrong_weights(saved, monkeypatch):
    monkeypatch.setattr(tensor_files, "_read", trusting)
    _flip(saved.last)
    loaded, warnings = saved.load()
    assert loaded is not None
    assert warnings == []
    assert not torch.equal(loaded["weights"], state(2)["weights"])


@pytest.mark.fault("F8")
def test_a_flip_of_any_byte_is_found_or_harmless(saved):
    whole = saved.last.read_bytes()
    wanted = read_checked(saved.last)
    harmless = 0
    places = range(0, len(whole), 11)
    for place in places:
        saved.last.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            loaded = read_checked(saved.last)
        except (RunFolderError, ConfigError):
            continue
        harmless += 1
        assert torch.equal(loaded["weights"], wanted["weights"])
        assert {name: loaded[name] for name in ("step", "names", "rate")} == {
            name: wanted[name] for name in ("step", "names", "rate")
        }
    assert harmless < len(places)


@pytest.mark.fault("F8")
def test_without_a_whole_checkpoint_the_run_does_not_start_over_silently(saved):
    saved.last.write_bytes(b"")
    _flip(saved.previous)
    for _ in range(2):  # nor when it is started again, as a batch system may do by itself
        with pytest.raises(RunFolderError, match=r"last\.damaged, previous\.damaged.*resume=false"):
            saved.load()
    saved.save(state(3))  # somebody restored one; a second damage does not overwrite what was set aside
    saved.last.write_bytes(b"")
    with pytest.raises(RunFolderError, match=r"last\.damaged2"):
        saved.load()


def stopped(folder: Path, *more: str, run: Path | None = None) -> Path:
    """Kill a small run after its fourth save; return its folder."""
    log = folder / "log.txt"
    more = (*more, *([f"paths.run_dir={run}"] if run else []))
    process = start(arguments("erm", folder / "out", *more), log, before=partial(on_call, SAVE, 5, kill))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    return run_folder(folder / "out") if run is None else run


SAVE = "robustlab.engine.checkpoint:Checkpoints.save"


@pytest.mark.slow
@pytest.mark.fault("F8")
def test_damage_to_a_run_costs_one_cadence_and_no_bit(tmp_path):
    log, whole, copy = tmp_path / "log.txt", tmp_path / "whole", tmp_path / "copy"
    assert train(arguments("erm", whole), log) == 0, log.read_text()
    begun = stopped(tmp_path)
    for damage in DAMAGES:
        broken = copy / damage / begun.parent.name / begun.name
        shutil.copytree(begun, broken)
        DAMAGES[damage](broken / "checkpoints" / "last.pt")
        said = tmp_path / f"{damage}.txt"
        assert train(arguments("erm", copy / damage), said) == 0, said.read_text()
        assert "renamed to last.damaged" in said.read_text()
        assert_same_run(run_folder(whole), broken)
    shutil.copytree(begun, copy / "none" / begun.parent.name / begun.name)
    for name in ("last.pt", "previous.pt"):
        (copy / "none" / begun.parent.name / begun.name / "checkpoints" / name).write_bytes(b"")
    said = tmp_path / "none.txt"
    assert train(arguments("erm", copy / "none"), said) == 4
    assert "start over with resume=false" in said.read_text()
    assert "Traceback" not in said.read_text()


@pytest.mark.fault("F9")
def test_a_run_of_other_settings_is_refused_with_the_keys_that_differ(tmp_path):
    run = stopped(tmp_path, run=tmp_path / "out" / "run")
    kept = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    other = ["optimizer.lr=0.025", "model.widths=[8,24]", f"paths.run_dir={run}"]
    said = tmp_path / "other.txt"
    assert train(arguments("erm", tmp_path / "out", *other), said) == 2
    text = said.read_text()
    assert "optimizer.lr: 0.05 when it was saved, now 0.025" in text
    assert "model.widths: [8, 16] when it was saved, now [8, 24]" in text
    assert "resume=force" in text
    assert "Traceback" not in text
    assert train(arguments("erm", tmp_path / "out", *other, "resume=force"), said) == 2  # weights fit no other widths
    assert "the checkpoint does not fit the network 'network'" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == kept
    forced = ["optimizer.lr=0.025", f"paths.run_dir={run}", "resume=force"]
    assert train(arguments("erm", tmp_path / "out", *forced), said) == 0, said.read_text()
    assert "warning: resume=force: optimizer.lr: 0.05 when it was saved, now 0.025" in said.read_text()
    assert "resume=force: optimizer.lr" in (run / "record.json").read_text()


@pytest.mark.slow
@pytest.mark.fault("F9", "F25", control=True)
def test_settings_control_an_engine_that_does_not_look_mixes_two_runs(tmp_path):
    run = stopped(tmp_path, run=tmp_path / "out" / "run")
    other = arguments("erm", tmp_path / "out", "optimizer.lr=0.025", f"paths.run_dir={run}")
    assert train(other, tmp_path / "other.txt", before=blind) == 0
    whole = tmp_path / "out" / "whole"
    assert (
        train(arguments("erm", tmp_path / "out", f"paths.run_dir={whole}", "optimizer.lr=0.025"), tmp_path / "log.txt")
        == 0
    )
    with pytest.raises(AssertionError):
        assert_same_run(whole, run)


def blind() -> None:
    """Take away all that compares a folder's settings with those of now."""
    replace("robustlab.engine.origin:check_resumable", no_check)
    for place in ("robustlab.sweeps.claimed_folders:refusal", "robustlab.engine.run:refusal"):
        replace(place, no_refusal)


def no_check(saved: object, now: object, **options: object) -> list[str]:
    return []


def no_refusal(folder: object, cfg: object) -> None:
    return None


@pytest.mark.fault("F9")
def test_a_checkpoint_of_another_version_is_left_where_it_is(saved, monkeypatch):
    monkeypatch.setattr(checkpoint, "SCHEMA_VERSION", 99)
    with pytest.raises(ConfigError, match=r"has schema 2, but this version of robustlab reads 99; continue with"):
        saved.load()
    assert saved.last.exists()


@pytest.mark.fault("F24")
def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(saved, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tensor_files, "_read", refuse)
    with pytest.raises(RunFolderError, match="fix its permissions"):
        saved.load()
    assert saved.last.exists()
