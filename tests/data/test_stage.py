"""Files copied to node-local storage: once per node, whole, and read from there."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robustlab.core.errors import DataError, UnavailableError
from robustlab.data.run_data import Data
from robustlab.data.sources.image_folder import ImageFolder
from robustlab.data.sources.parquet import Parquet
from robustlab.data.storage.staging import Stage
from tests.data.fixtures import picture
from tests.data.test_sources_parquet import png, write

NAMES = [f"{number}.bin" for number in range(20)]


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(bytes([number]) * (100 + number))
    (tmp_path / "node").mkdir()
    return folder


def program(root: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.data.staging_program", str(root), str(root.parent / "node"), str(seconds)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)


def assert_whole(place: Path, root: Path) -> None:
    assert all((place / name).read_bytes() == (root / name).read_bytes() for name in NAMES)
    assert not [path for path in place.iterdir() if path.name.startswith(".") and ".bin." in path.name]


def test_copies_are_whole_and_made_once(root, tmp_path, monkeypatch):
    stage = Stage(tmp_path / "node")
    place = stage.files(root, NAMES)
    assert place.is_relative_to(tmp_path / "node")
    assert_whole(place, root)
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied again"))
    assert Stage(tmp_path / "node").files(root, NAMES) == place


def test_a_file_that_changed_is_copied_again_even_in_the_same_size(root, tmp_path):
    stage = Stage(tmp_path / "node")
    stage.files(root, NAMES)
    (root / "3.bin").write_bytes(b"x" * 103)
    os.utime(root / "3.bin", (1, 1))
    assert_whole(stage.files(root, NAMES), root)


@pytest.mark.slow
@pytest.mark.fault("F14")
def test_two_processes_copy_once(root):
    both = [program(root, 0.05) for _ in range(2)]
    copied = sorted(int(one.communicate(timeout=120)[0].split()[0]) for one in both)
    assert copied == [0, 20]


@pytest.mark.slow
@pytest.mark.fault("F14")
def test_an_interrupted_copy_is_never_used_and_gone_on_with(root, tmp_path):
    first = program(root, 0.2)
    staged = tmp_path / "node" / "robustlab"
    deadline = time.monotonic() + 60
    while len(list(staged.glob("*/*.bin"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    first.communicate()
    (place,) = staged.iterdir()
    there = len(list(place.glob("*.bin")))
    assert 3 <= there < 20
    assert not list(place.glob(".complete-*"))
    (place / "0.bin").write_bytes(b"torn")
    second = program(root, 0)
    copied = int(second.communicate(timeout=120)[0].split()[0])
    assert copied == 20 - there + 1
    assert all((place / name).read_bytes() == (root / name).read_bytes() for name in NAMES)


def test_a_folder_that_cannot_be_used_is_one_sentence(root, tmp_path, monkeypatch):
    with pytest.raises(UnavailableError, match=r"paths\.stage=.*nowhere is not a folder on this node.*SLURM_TMPDIR"):
        Stage(tmp_path / "nowhere")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UnavailableError, match=r"2,190 bytes are needed, 100 are free; free up space"):
        Stage(tmp_path / "node").files(root, NAMES)
    monkeypatch.undo()

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UnavailableError, match=r"cannot be copied to paths\.stage=.*No space left on device.*null"):
        Stage(tmp_path / "node").files(root, NAMES)
    assert not list((tmp_path / "node").rglob("*.bin*")), "nothing half is left"


def test_a_file_that_is_missing_is_named(root, tmp_path):
    with pytest.raises(DataError, match=r"gone\.bin and 0 more are missing"):
        Stage(tmp_path / "node").files(root, [*NAMES, "gone.bin"])


@pytest.mark.parametrize("kind", ["files", "parquet"])
def test_streaming_reads_from_the_stage(tmp_path, kind):
    if kind == "files":
        for number, name in enumerate(["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"]):
            picture(tmp_path / "data" / name, number)
        make = lambda: ImageFolder(str(tmp_path / "data"), size=6, storage="streaming")  # noqa: E731
    else:
        for split in ("train", "test"):
            write(tmp_path / "data" / f"{split}-00000-of-00001.parquet", [png(3), png(4)], [0, 1])
        cache = str(tmp_path / "cache")
        make = lambda: Parquet(str(tmp_path / "data"), size=6, storage="streaming", cache_dir=cache)  # noqa: E731
    (tmp_path / "node").mkdir()
    loaders = {}
    for stage in (None, tmp_path / "node"):
        data = Data(make(), seed=0, storage="streaming", stage=stage)
        loaders[stage] = [data.evaluation(split, 2) for split in ("train", "test")]
    plain = [batch.images for loader in loaders[None] for batch in loader.epoch(0)]
    for folder in ("data", "cache"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    staged = [batch.images for loader in loaders[tmp_path / "node"] for batch in loader.epoch(0)]
    assert all(torch.equal(one, other) for one, other in zip(plain, staged, strict=True))
