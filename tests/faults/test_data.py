"""F12, F13, F14: damaged, missing and changed files, interrupted and simultaneous preparation."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.core.errors import DataError
from robustlab.data.run_data import Data
from robustlab.data.sources.file_source import image_files
from robustlab.data.sources.image_folder import ImageFolder
from robustlab.data.storage import manifest
from robustlab.data.storage.cache import cached_array
from tests.end_to_end.harness import train
from tests.faults.careless_data import Substitute, cached_in_place, listed_as_found

ROOT = Path(__file__).parents[2]
DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "zero bytes": lambda data: b"",
    "text": lambda data: b"<html>404 not found</html>",
    "zero hole": lambda data: data[:20] + bytes(len(data) - 20),
}
"""What is done to the files named train/a/<number>.png, from 1 on."""


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of 8 training and 4 test images of 8x8."""
    root = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def damage(root: Path) -> list[str]:
    files = [f"train/a/{number}.png" for number in range(1, len(DAMAGE) + 1)]
    for file, change in zip(files, DAMAGE.values(), strict=True):
        (root / file).write_bytes(change((root / file).read_bytes()))
    return files


def arguments(root: Path, *more: str) -> list[str]:
    folder = root.parent
    return [
        "method=erm", "dataset=image_folder", "noise=none", "trainer.epochs=1", "trainer.batch_size=4",
        "model.widths=[4,4,4]", f"dataset.source.root={root}", "dataset.source.size=8",
        f"paths.cache_dir={folder}/cache", f"paths.output_dir={folder}/out", f"paths.run_dir={folder}/out/run",
        *more,
    ]  # fmt: skip


CROPS = "{train: {_target_: robustlab.data.transforms.decode.RandomResizedCrop, size: 8}, eval: {_target_: robustlab.data.transforms.decode.ResizeCenterCrop, resize: 8, size: 8}}"  # noqa: E501
STREAMING = ("dataset.storage=streaming", f"dataset.decode={CROPS}", "dataset.workers=2")


def say(root: Path, *more: str) -> tuple[int, str]:
    output = root.parent / "output.txt"
    output.unlink(missing_ok=True)
    code = train(arguments(root, *more), output)
    said = output.read_text()
    assert "Traceback" not in said
    return code, said


def assert_found(images, files: list[str]) -> None:
    """Every damaged image of a source must be refused by name when it is read."""
    for index, file in enumerate(images.files):
        if file in files:
            with pytest.raises(DataError, match=file):
                images.decode(index)


# F12


@pytest.mark.fault("F12")
@pytest.mark.parametrize("storage", ["resident", "streaming"])
def test_damaged_images_are_all_listed_at_preparation(photos, storage, tmp_path):
    files = damage(photos)
    command = [sys.executable, "scripts/prepare_data.py", "image_folder", *arguments(photos)[6:9]]
    done = subprocess.run(
        [*command, f"dataset.storage={storage}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "4 damaged image(s)" in done.stderr
    assert all(file in done.stderr for file in files)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.fault("F12")
def test_a_run_on_damaged_images_stops_or_leaves_them_out_as_asked(photos):
    files = damage(photos)
    (photos / "test/b/3.png").write_bytes(b"")
    code, said = say(photos)
    assert code == 3
    assert "4 damaged image(s)" in said
    assert all(file in said for file in files)
    for storage in ((), STREAMING):
        code, said = say(photos, "dataset.on_error=skip", "resume=false", "trainer.max_steps=1", *storage)
        assert code == 0, said
        assert "skipping 4 damaged train image(s)" in said
        assert "skipping 1 damaged test image(s)" in said
        for path in ("skipped_images.json", "results.json"):
            content = json.loads((photos.parent / "out" / "run" / path).read_text())
            listed = content.get("skipped_images", content)
            assert {split: sorted(found) for split, found in listed.items()} == {
                "train": files,
                "test": ["test/b/3.png"],
            }
        listed = gzip.decompress((photos.parent / "out" / "run" / "files.tsv.gz").read_bytes()).decode().splitlines()
        assert len(listed) == 12 + 7
    code, said = say(photos.parent / "photos", "dataset=digits", "dataset.on_error=skip")
    assert code == 2


@pytest.mark.slow
@pytest.mark.fault("F12")
def test_a_damaged_image_in_mid_epoch_ends_a_streaming_run_with_its_name(photos):
    damage(photos)
    code, said = say(photos, *STREAMING)
    assert code == 3
    assert "train/a/" in said


@pytest.mark.fault("F12")
def test_what_is_damaged_is_refused_when_it_is_read(photos):
    files = damage(photos)
    assert_found(ImageFolder(str(photos), size=8, storage="streaming").split("train").images, files)


@pytest.mark.fault("F12", control=True)
def test_a_silent_substitute_is_noticed(photos):
    files = damage(photos)
    plain = ImageFolder(str(photos), size=8, storage="streaming").split("train").images
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        assert_found(Substitute(plain.root, plain.files, 3), files)


# F13


CHANGES = {
    "train: train/a/0.png is missing": lambda root: (root / "train/a/0.png").unlink(),
    "train: train/a/new.png is new": lambda root: (root / "train/a/new.png").hardlink_to(root / "train/a/0.png"),
    "train: train/a/renamed.png is new": lambda root: (root / "train/a/0.png").rename(root / "train/a/renamed.png"),
    "train: train/b/9.png is new": lambda root: (root / "train/a/0.png").rename(root / "train/b/9.png"),
    "test: test/b/0.png is missing": lambda root: (root / "test/b/0.png").unlink(),
    "class folder(s) differ": lambda root: (root / "train/b").rename(root / "train/c"),
}


def files_of(root: Path) -> dict[str, dict[str, int]]:
    return Data(ImageFolder(str(root), size=8), seed=0).manifest()


@pytest.mark.fault("F13")
@pytest.mark.parametrize("expected", CHANGES)
def test_files_that_changed_are_named(photos, expected):
    manifest.write(photos.parent / "files.tsv.gz", files_of(photos))
    CHANGES[expected](photos)
    with pytest.raises(DataError) as refused:
        manifest.check_same(photos.parent / "files.tsv.gz", files_of(photos))
    assert expected in str(refused.value)


@pytest.mark.slow
@pytest.mark.fault("F13")
def test_a_run_does_not_go_on_with_other_files(photos):
    assert say(photos, "trainer.max_steps=1")[0] == 0
    (photos.parent / "out" / "run" / "results.json").unlink()
    (photos / "train/a/0.png").rename(photos / "train/b/9.png")
    code, said = say(photos, "trainer.max_steps=1")
    assert code == 3
    assert "train: train/a/0.png is missing" in said
    assert "resume=false" in said


@pytest.mark.fault("F13")
def test_ten_differences_are_named_and_the_rest_counted(tmp_path):
    before = {"train": {f"{number}.png": 0 for number in range(20)}}
    manifest.write(tmp_path / "files.tsv.gz", before)
    manifest.check_same(tmp_path / "files.tsv.gz", before)
    relabelled = {"train": {name: 1 for name in before["train"]}}
    with pytest.raises(DataError, match=r"20 difference\(s\).*\n.*0\.png had label 0, now has 1(.|\n)*and 10 more"):
        manifest.check_same(tmp_path / "files.tsv.gz", relabelled)
    other_order = {"train": dict(reversed(before["train"].items()))}
    with pytest.raises(DataError, match="the same files in a different order"):
        manifest.check_same(tmp_path / "files.tsv.gz", other_order)
    (tmp_path / "files.tsv.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(DataError, match=r"damaged.*delete it"):
        manifest.check_same(tmp_path / "files.tsv.gz", before)


def backward_file_system(monkeypatch, folder: Path) -> None:
    """The folder lists its entries backwards, as another file system might."""
    names = sorted(path.name for path in folder.iterdir())[::-1]
    monkeypatch.setattr(os, "walk", lambda *_, **__: iter([(str(folder), [], names)]))


@pytest.mark.fault("F13", control=True)
def test_a_plain_listing_depends_on_the_file_system(photos, monkeypatch):
    names = [f"{number}.png" for number in range(8)]
    assert sorted(listed_as_found(photos / "train/a")) == image_files(photos / "train/a") == names
    backward_file_system(monkeypatch, photos / "train/a")
    assert listed_as_found(photos / "train/a") == names[::-1]
    assert image_files(photos / "train/a") == names


# F14

PREPARING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from robustlab.data.storage.cache import cached_array
from tests.faults.careless_data import cached_in_place
def blocks():
    yield np.ones((5, 2), np.uint8)
    os.kill(os.getpid(), signal.SIGKILL)
path = Path(sys.argv[2])
cached_array(path, (10, 2), "uint8", blocks) if sys.argv[1] == "ours" else cached_in_place(path, 20, blocks)
"""


def killed_while_preparing(which: str, path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PREPARING, which, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def whole():
    yield np.ones((10, 2), np.uint8)


@pytest.mark.fault("F14")
def test_a_cache_whose_making_was_killed_is_made_again(tmp_path):
    path = tmp_path / "a.npy"
    killed_while_preparing("ours", path)
    assert not path.exists()
    assert np.array_equal(cached_array(path, (10, 2), "uint8", whole), np.ones((10, 2)))


@pytest.mark.fault("F14", control=True)
def test_a_cache_written_in_place_is_taken_for_whole(tmp_path):
    path = tmp_path / "a.bin"
    killed_while_preparing("theirs", path)
    assert path.exists()
    assert cached_in_place(path, 20, whole).size < 20


@pytest.mark.slow
@pytest.mark.fault("F14")
def test_two_processes_that_prepare_one_data_set_end_with_the_same(photos):
    command = [sys.executable, "scripts/prepare_data.py", "image_folder", *arguments(photos)[6:9]]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    for one in both:
        one.stdout.close()
    cached = sorted(path.name for path in (photos.parent / "cache").rglob("*.npy"))
    assert len(cached) == 2
    assert not [path for path in (photos.parent / "cache").rglob(".*") if "lock" not in path.name]
    cached_images = ImageFolder(str(photos), size=8, cache_dir=str(photos.parent / "cache")).split("train").images
    assert torch.equal(cached_images, ImageFolder(str(photos), size=8).split("train").images)
