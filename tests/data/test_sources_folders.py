"""Image folders, Tiny-ImageNet and mini-WebVision in their layouts on disk, whole and damaged."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import LazyImages
from robustlab.data.sources import file_source as files
from robustlab.data.sources.image_folder import ImageFolder
from robustlab.data.sources.tiny_imagenet import TinyImageNet
from robustlab.data.sources.webvision import MiniWebVision


def picture(path: Path, value: int, size: tuple[int, int] = (6, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # lossless whatever the suffix says, so that pixels can be compared
    Image.new("RGB", size, (value, value, value)).save(path, "PNG")


def values(images: torch.Tensor | LazyImages) -> list[int]:
    if isinstance(images, torch.Tensor):
        return images[:, 0, 0, 0].tolist()
    return [int(images.decode(index)[0, 0, 0]) for index in range(len(images))]


def folder(root: Path, test: str = "val") -> Path:
    for value, name in enumerate(["train/b/2.png", "train/b/10.png", "train/a/x/deep.jpg", "train/a/0.PNG"]):
        picture(root / name, value)
    for value, name in enumerate([f"{test}/b/1.png", f"{test}/a/1.png"], start=8):
        picture(root / name, value)
    (root / "train/a/.DS_Store").write_text("clutter")
    (root / "train/.hidden").mkdir()
    return root


@pytest.mark.parametrize("storage", ["resident", "streaming"])
@pytest.mark.parametrize("test", ["test", "val"])
def test_image_folder(tmp_path, storage, test):
    source = ImageFolder(str(folder(tmp_path / "data", test)), storage=storage, cache_dir=str(tmp_path / "cache"))
    assert source.task.class_names == ("a", "b")
    assert source.task.image_shape == (3, 6, 6)
    train = source.split("train")
    assert values(train.images) == [3, 2, 1, 0]  # a/0.PNG, a/x/deep.jpg, b/10.png, b/2.png
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert values(source.split("test").images) == [9, 8]


@pytest.mark.fault("F13")
def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    root = folder(tmp_path)
    plain = ImageFolder(str(root)).files("train")
    walk = files.os.walk
    monkeypatch.setattr(files.os, "walk", lambda *a, **k: [(d, s, n[::-1]) for d, s, n in walk(*a, **k)][::-1])
    assert ImageFolder(str(root)).files("train") == plain


def test_cache_is_used_and_follows_the_files(tmp_path, monkeypatch):
    root, cache = folder(tmp_path / "data"), str(tmp_path / "cache")
    assert values(ImageFolder(str(root), size=6, cache_dir=cache).split("train").images) == [3, 2, 1, 0]
    with monkeypatch.context() as patch:
        patch.setattr(files, "image_blocks", None)
        assert values(ImageFolder(str(root), size=6, cache_dir=cache).split("train").images) == [3, 2, 1, 0]
    picture(root / "train/a/0.PNG", 77)
    assert values(ImageFolder(str(root), size=6, cache_dir=cache).split("train").images) == [77, 2, 1, 0]


def test_all_damaged_files_are_listed(tmp_path):
    root = folder(tmp_path)
    (root / "train/a/empty.jpg").write_bytes(b"")
    (root / "train/b/text.jpg").write_text("not a picture")
    (root / "train/b/link.jpg").symlink_to(root / "nowhere.jpg")
    good = (root / "train/b/2.png").read_bytes()
    (root / "train/b/cut.png").write_bytes(good[: len(good) - 30])
    with pytest.raises(DataError) as caught:
        ImageFolder(str(root)).split("train")
    for part in ("4 damaged", "train/a/empty.jpg: the file is empty", "text.jpg: not an image", "link.jpg: No such",
                 "cut.png: "):  # fmt: skip
        assert part in str(caught.value)
    lazy = ImageFolder(str(root), storage="streaming").split("train").images
    assert not isinstance(lazy, torch.Tensor)
    with pytest.raises(DataError, match=r"train/b/text\.jpg"):
        lazy.decode(7)


def test_sizes_must_agree_or_be_given(tmp_path):
    root = folder(tmp_path)
    picture(root / "train/b/wide.png", 50, (12, 6))
    with pytest.raises(ConfigError, match=r"set dataset\.source\.size(?s:.*)train/b/wide\.png: 12x6"):
        ImageFolder(str(root)).split("train")
    images = ImageFolder(str(root), size=3).split("train").images
    assert isinstance(images, torch.Tensor)
    assert images.shape == (5, 3, 3, 3)


@pytest.mark.fault("F13")
def test_folder_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"train does not exist; expected train/<class>/<images>"):
        ImageFolder(str(tmp_path / "nowhere")).split("train")
    root = folder(tmp_path)
    with pytest.raises(ConfigError, match="no test folder"):
        ImageFolder(str(root), test_folder="exam").split("test")
    picture(root / "val/c/1.png", 1)
    with pytest.raises(DataError, match=r"1 class folder\(s\) differ:\n  c is not a class of train"):
        ImageFolder(str(root)).split("test")
    (root / "train/empty").mkdir()
    with pytest.raises(DataError, match=r"no samples of class 2 \(empty\); add some, or remove the class$"):
        ImageFolder(str(root)).split("train")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_files_that_are_not_images_are_left_out_with_one_warning_a_folder(tmp_path, capsys, on_error):
    root = folder(tmp_path)
    for name in ("notes.txt", "labels.csv"):
        (root / "train/b" / name).write_text("hello")
    source = ImageFolder(str(root), cache_dir=str(tmp_path / "cache"))
    source.on_error = on_error
    files._TOLD.clear()
    split = source.split("train")
    assert split.names == ("train/a/0.PNG", "train/a/x/deep.jpg", "train/b/10.png", "train/b/2.png")
    written = capsys.readouterr().err
    assert written == f"warning: {root / 'train/b/labels.csv'} and 1 more: no image suffix, ignored\n"


def test_many_folders_with_other_files_do_not_flood_the_screen(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(files, "_TOLD", set())
    for number in range(20):
        picture(tmp_path / f"train/{number}/1.png", number)
        (tmp_path / f"train/{number}/notes.txt").write_text("hello")
    ImageFolder(str(tmp_path)).files("train")
    assert capsys.readouterr().err.count("\n") == 6


def tiny(root: Path) -> Path:
    (root / "val").mkdir(parents=True)
    (root / "wnids.txt").write_text("n02\nn01\n")
    for value, name in enumerate(["n01_0", "n01_1", "n02_0"]):
        picture(root / f"train/{name[:3]}/images/{name}.JPEG", value)
        (root / f"train/{name[:3]}/{name[:3]}_boxes.txt").write_text("")
    for value, name in enumerate(["val_0", "val_1"], start=5):
        picture(root / f"val/images/{name}.JPEG", value)
    (root / "val/val_annotations.txt").write_text("val_1.JPEG\tn01\t0\t0\t9\t9\nval_0.JPEG\tn02\t0\t0\t9\t9\n")
    return root


def test_tiny_imagenet(tmp_path):
    source = TinyImageNet(str(tiny(tmp_path)), num_classes=2, size=6)
    train, test = source.split("train"), source.split("test")
    assert source.task.class_names == ("n02", "n01")  # the order of wnids.txt
    assert values(train.images) == [2, 0, 1]
    assert train.labels.tolist() == [0, 1, 1]
    assert values(test.images) == [5, 6]
    assert test.labels.tolist() == [0, 1]


@pytest.mark.fault("F13")
def test_tiny_imagenet_mistakes(tmp_path):
    root = tiny(tmp_path)
    with pytest.raises(DataError, match=r"wnids\.txt has 2 lines, 2 of them different, for 200 classes"):
        TinyImageNet(str(root)).split("train")
    source = TinyImageNet(str(root), num_classes=2, size=6)
    picture(root / "val/images/val_2.JPEG", 1)
    with pytest.raises(DataError, match=r"1 image\(s\) have no label:\n  val_2.JPEG"):
        source.split("test")
    (root / "val/images/val_2.JPEG").unlink()
    (root / "val/images/val_1.JPEG").unlink()
    with pytest.raises(DataError, match=r"1 image\(s\) are missing:\n  val_1.JPEG"):
        source.split("test")
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn09\n")
    with pytest.raises(DataError, match="line 1: expected"):
        source.split("test")
    (root / "train/n01").rename(root / "train/n03")
    with pytest.raises(DataError, match=r"2 class folder\(s\) differ from wnids.txt"):
        source.split("train")
    with pytest.raises(ConfigError, match=r"unpack tiny-imagenet-200\.zip"):
        TinyImageNet(str(root / "nowhere")).split("train")


def webvision(root: Path) -> Path:
    (root / "info").mkdir(parents=True)
    names = ["google/q0002/b.jpg", "google/q0001/a.jpg", "google/q0001/c.jpg"]
    for value, name in enumerate(names):
        picture(root / name, value)
    (root / "info/train_filelist_google.txt").write_text(
        f"{names[0]} 1\n{names[1]} 0\ngoogle/q0900/unused.jpg 7\n{names[2]} 0\n"
    )
    for value, name in enumerate(["val000001.jpg", "val000002.jpg"], start=5):
        picture(root / f"val_images_256/{name}", value)
    (root / "info/val_filelist.txt").write_text("val000001.jpg 1\nval000002.jpg 0\nval000003.jpg 9\n")
    return root


def test_mini_webvision(tmp_path):
    source = MiniWebVision(str(webvision(tmp_path)), num_classes=2, size=6)
    assert "clean_labels" not in source.provides
    assert source.task.image_shape == (3, 6, 6)
    train, test = source.split("train"), source.split("test")
    assert values(train.images) == [0, 1, 2]
    assert train.labels.tolist() == [1, 0, 0]
    assert values(test.images) == [5, 6]
    assert test.labels.tolist() == [1, 0]
    with pytest.raises(ConfigError, match="imagenet_root"):
        source.split("imagenet")


@pytest.mark.parametrize("names", [("0", "1"), ("n01440764", "n01443537")])
def test_webvision_classes_of_imagenet(tmp_path, names):
    root, other = webvision(tmp_path / "webvision"), tmp_path / "ilsvrc"
    for value, name in enumerate(names):
        picture(other / "val" / name / f"ILSVRC2012_val_0000000{value}.JPEG", 20 + value)
    picture(other / "val" / "n09999999" / "x.JPEG", 1)
    source = MiniWebVision(str(root), imagenet_root=str(other), num_classes=2, size=6)
    if names[0] != "0":
        with pytest.raises(ConfigError, match=r"named 0, 1, \.\.\. or by WordNet id"):
            source.split("imagenet")
        (root / "info/synsets.txt").write_text(f"{names[0]} tench, Tinca tinca\n{names[1]} goldfish\nn3 shark\n")
    split = source.split("imagenet")
    assert values(split.images) == [20, 21]
    assert split.labels.tolist() == [0, 1]


def test_webvision_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"info/train_filelist_google\.txt does not exist; expected WebVision 1\.0"):
        MiniWebVision(str(tmp_path / "nowhere")).split("train")
    root = webvision(tmp_path)
    source = MiniWebVision(str(root), num_classes=2)
    (root / "google/q0001/c.jpg").unlink()
    with pytest.raises(DataError, match=r"1 image\(s\) are missing:\n  google/q0001/c.jpg"):
        source.split("train")
    filelist = root / "info/train_filelist_google.txt"
    filelist.write_text("google/q0001/a.jpg 0\ngoogle/q0001/a.jpg 0\n")
    with pytest.raises(DataError, match=r"1 image\(s\) are listed twice"):
        source.split("train")
    filelist.write_text("google/q0001/a.jpg zero\n")
    with pytest.raises(DataError, match="line 1: expected 'file label'"):
        source.split("train")
