"""Disks that are full, folders that cannot be written, file systems that stumble."""

import errno
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from robustlab.core import files
from robustlab.core.errors import RunFolderError
from robustlab.engine.checkpoint import Checkpoints, read_checked, write_atomically
from robustlab.engine.lock import locked
from robustlab.engine.run_folder import prepare_folder
from tests.end_to_end.harness import assert_same_run, run_folder, train
from tests.faults.injectors import on_call, replace
from tests.faults.subjects import arguments

BIG = {"weights": torch.zeros(200_000)}


def small_files() -> None:
    """Let no file of this process grow beyond 100 kB, as a quota would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def _save_under_limit(folder: str) -> None:
    small_files()
    try:
        Checkpoints(Path(folder)).save(BIG)
    except RunFolderError as error:
        print(error)


@pytest.mark.fault("F7")
def test_a_full_disk_is_named_with_sizes_and_the_old_checkpoint_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1})
    code = f"from tests.faults.test_disk import _save_under_limit as f; f({str(tmp_path)!r})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"could not write {tmp_path / 'next.pt'}: File too large (800.0 kB needed, " in said
    assert "free, quotas and limits on files aside). Free disk space or quota and run the same command again" in said
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert read_checked(checkpoints.last)["step"] == 1


@pytest.mark.fault("F7")
def test_dev_full_gives_the_same_message(tmp_path, monkeypatch):
    real = open

    def opened(path, mode="r", **more):
        return real("/dev/full" if str(path).endswith(".tmp") else path, mode, **more)

    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(RunFolderError, match=r"last\.pt: No space left on device \(800\.0 kB needed, .* free"):
        write_atomically(tmp_path / "last.pt", BIG)
    assert list(tmp_path.iterdir()) == []


def hopeful_write(path: Path, state: dict) -> None:
    """The negative control: straight to the final name."""
    with open(path, "wb") as file:
        torch.save(state, file)


@pytest.mark.fault("F7", control=True)
def test_full_disk_control_a_write_in_place_loses_the_old_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1})
    code = (
        "from tests.faults.test_disk import *; small_files()\n"
        f"try: hopeful_write(Path({str(checkpoints.last)!r}), BIG)\nexcept Exception: pass"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(RunFolderError):
        read_checked(checkpoints.last)


@pytest.mark.fault("F7")
def test_room_for_the_checkpoints_is_looked_for_before_the_first_step(tmp_path):
    log = tmp_path / "log.txt"
    full = partial(replace, "robustlab.engine.checkpoint:free_bytes", ten_kilobytes)
    assert train(arguments("erm", tmp_path / "out"), log, before=full) == 4
    text = log.read_text()
    assert "has 10.0 kB free, but checkpoints need" in text
    assert "choose another place with paths.output_dir=" in text
    assert "Traceback" not in text
    assert not list(run_folder(tmp_path / "out").glob("checkpoints/*"))


def ten_kilobytes(folder: Path) -> int:
    return 10_000


@pytest.mark.fault("F7")
def test_the_size_of_a_checkpoint_is_known_beforehand(tmp_path):
    log = tmp_path / "log.txt"
    for number, optimizer in enumerate(("sgd", "adamw")):
        options = [f"optimizer={optimizer}", "optimizer.lr=0.01", "model.widths=[32,64]", "trainer.max_steps=2"]
        full = partial(replace, "robustlab.engine.checkpoint:free_bytes", ten_kilobytes)
        assert train(arguments("erm", tmp_path / f"a{number}", *options), log, before=full) == 4
        said = log.read_text().splitlines()[-1]
        expected = float(said.split("three of ")[1].split(" kB")[0]) * 1000
        assert train(arguments("erm", tmp_path / f"b{number}", *options), log) == 0
        real = (run_folder(tmp_path / f"b{number}") / "checkpoints" / "last.pt").stat().st_size
        assert 0.7 * real <= expected <= 1.1 * real


def _is_root_with_mounts() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.fault("F7")
@pytest.mark.skipif(not _is_root_with_mounts(), reason="mounting a small tmpfs takes root; limits are tested without")
def test_a_run_on_a_small_tmpfs_stops_with_its_checkpoint_and_goes_on_when_there_is_room(tmp_path):
    small, whole, log = tmp_path / "small", tmp_path / "whole", tmp_path / "log.txt"
    small.mkdir()
    assert train(arguments("erm", whole), log) == 0, log.read_text()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True)
    try:
        fill = partial(fill_up, small)
        command = arguments("erm", small)
        assert train(command, log, before=partial(on_call, "robustlab.engine.loop:save", 4, fill)) == 4
        text = log.read_text()
        assert "No space left on device" in text
        assert "Free disk space or quota and run the same command again" in text
        assert "Traceback" not in text
        assert not list(small.rglob("*.tmp"))
        (small / "filler").unlink()
        assert train(command, log) == 0, log.read_text()
        assert_same_run(run_folder(whole), run_folder(small))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def fill_up(folder: Path) -> None:
    """Leave no room on a small file system."""
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


# Folders that cannot be written


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/proc/nothing/out", "No such file or directory"),
        ("/dev/full/out", "Not a directory"),
        ("{file}", "File exists|Not a directory"),
        ("{file}/out", "Not a directory"),
        ("{tmp}/" + "x" * 300, "File name too long"),
        ("/sys/out", "Operation not permitted|Permission denied|Read-only|No such"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_with_the_setting_to_change(tmp_path, name, reason):
    (tmp_path / "file").touch()
    folder = Path(name.format(file=tmp_path / "file", tmp=tmp_path))
    with pytest.raises(RunFolderError, match=rf"is not writable \(({reason}).*paths\.output_dir=") as refusal:
        prepare_folder(folder, resume=True, output_dir=folder)
    assert refusal.value.exit_code == 4


@pytest.mark.fault("F16")
@pytest.mark.parametrize("name", ["with space", "ünïcödé 目", "quote'\"$(touch x)"])
def test_unusual_names_of_folders_work(tmp_path, name):
    log = tmp_path / "log.txt"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    where = f'paths.output_dir="{tmp_path}/{escaped}"'
    command = [*arguments("erm", tmp_path, "trainer.max_steps=2")[:-1], where]
    assert train(command, log) == 0, log.read_text()
    assert run_folder(tmp_path / name)
    assert not Path("x").exists()


@pytest.mark.fault("F16")
def test_a_newline_in_a_path_is_refused(tmp_path):
    log = tmp_path / "log.txt"
    assert train([*arguments("erm", tmp_path)[:-1], f'paths.output_dir="{tmp_path}/a\nb"'], log) == 2
    assert "control characters" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.fault("F16", control=True)
def test_folder_control_without_the_check_python_s_own_error_comes_through(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), locked(tmp_path / "file" / "out"):  # what comes after the check
        raise AssertionError


# Network file systems


class Stumbling:
    """A call that fails the first `times` times, with `number`, before or after the deed."""

    def __init__(self, call, number: int, times: int, *, after: bool = False) -> None:
        self.call, self.number, self.left, self.after = call, number, times, after

    def __call__(self, *arguments):
        self.left -= 1
        if self.left >= 0:
            if self.after:
                self.call(*arguments)
            raise OSError(self.number, os.strerror(self.number))
        return self.call(*arguments)


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(files.time, "sleep", waited.append)
    return waited


@pytest.mark.fault("F24")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["replace", "fsync"])
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_an_error_that_passes_is_waited_out(tmp_path, monkeypatch, waits, name, number, after):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1})
    for step in range(2, 9):  # each time another of the calls of a save
        with monkeypatch.context() as patch:
            patch.setattr(os, name, Stumbling(getattr(os, name), number, 1, after=after))
            checkpoints.save({"step": step})
        assert Checkpoints(tmp_path).load()[0]["step"] == step  # type: ignore[index]
        assert read_checked(checkpoints.previous)["step"] == step - 1
    assert waits == [0.1] * 7
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "previous.pt"}


@pytest.mark.fault("F24")
def test_an_error_that_stays_ends_the_run_after_three_waits_and_the_old_checkpoint_is_there(
    tmp_path, monkeypatch, waits
):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Stumbling(os.fsync, errno.EIO, 100))
        with pytest.raises(RunFolderError, match=r"next\.pt: Input/output error\. Fix the file system"):
            checkpoints.save({"step": 2})
    assert waits == [0.1, 0.5, 2.0]
    assert Checkpoints(tmp_path).load()[0]["step"] == 1  # type: ignore[index]
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt"}


@pytest.mark.fault("F24", control=True)
def test_network_control_a_writer_that_does_not_wait_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WAITS", ())
    monkeypatch.setattr(os, "replace", Stumbling(os.replace, errno.ESTALE, 1))
    with pytest.raises(RunFolderError, match="Stale file handle"):
        Checkpoints(tmp_path).save({"step": 1})
