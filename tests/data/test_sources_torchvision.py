"""torchvision's data sets from tiny files in the layouts of the releases; no network."""

import gzip
import hashlib
import pickle
import socket
import struct
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets as tv

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.torchvision_sets import Torchvision

COLOUR = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
GREY = {"mean": (0.5,), "std": (0.2,)}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST: magic number with type and rank, sizes, data."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def mnist(root: Path, name: str) -> dict[str, np.ndarray]:
    """Write the four files of 20 + 10 images, gzipped."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    arrays = {
        "train-images-idx3": images[:20], "train-labels-idx1": np.arange(20) % 10,
        "t10k-images-idx3": images[20:], "t10k-labels-idx1": np.arange(10),
    }  # fmt: skip
    for stem, array in arrays.items():
        (raw / f"{stem}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return arrays


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize(("dataset", "name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
@pytest.mark.parametrize("download", [True, False])
def test_mnist_from_its_archives(tmp_path, no_network, dataset, name, download):
    arrays = mnist(tmp_path, name)
    source = Torchvision(dataset, root=str(tmp_path), download=download, **GREY)
    train, test = source.split("train"), source.split("test")
    assert isinstance(train.images, torch.Tensor)
    assert isinstance(test.images, torch.Tensor)
    assert train.images.shape == (20, 1, 28, 28)
    assert np.array_equal(train.images[:, 0].numpy(), arrays["train-images-idx3"])
    assert np.array_equal(test.images[:, 0].numpy(), arrays["t10k-images-idx3"])
    assert test.labels.tolist() == list(range(10))
    assert not list(tmp_path.glob(".prepare-*"))


def test_damaged_mnist(tmp_path, no_network):
    mnist(tmp_path, "MNIST")
    raw = tmp_path / "MNIST/raw"
    archive = raw / "train-images-idx3-ubyte.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-100])
    source = Torchvision("mnist", root=str(tmp_path), **GREY)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        source.split("train")
    assert not (raw / "t10k-labels-idx1-ubyte").exists()  # nothing is published before all of it is good
    archive.write_bytes(whole)
    source.split("train")
    unpacked = raw / "train-images-idx3-ubyte"
    unpacked.write_bytes(unpacked.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"the files in .* are damaged"):
        source.split("train")
    mixed = raw / "train-labels-idx1-ubyte"
    unpacked.write_bytes(idx(np.zeros((20, 28, 28))))
    mixed.write_bytes(idx(np.arange(20)))
    with pytest.raises(DataError, match=r"10 label\(s\) outside 0\.\.9, the first in row 10"):
        source.split("train")


def cifar(root: Path, monkeypatch, cls, folder: str, parts: dict[str, int], key: str, meta: str, meta_key: str):
    """Write the python version with `parts` (file: images) and tell torchvision the checksums of these files."""
    base, made = root / folder, {}
    base.mkdir(parents=True)
    for number, (part, count) in enumerate(parts.items()):
        data = np.random.default_rng(number).integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [index % (100 if key == "fine_labels" else 10) for index in range(count)]
        (base / part).write_bytes(pickle.dumps({"data": data, key: labels}))
        made[part] = data
    (base / meta).write_bytes(pickle.dumps({meta_key: ["name"]}))
    sums = [[part, md5(base / part)] for part in parts]
    monkeypatch.setattr(cls, "train_list", sums[:-1])
    monkeypatch.setattr(cls, "test_list", sums[-1:])
    monkeypatch.setattr(cls, "meta", {"filename": meta, "key": meta_key, "md5": md5(base / meta)})
    with tarfile.open(root / cls.filename, "w:gz") as archive:
        archive.add(base, folder)
    monkeypatch.setattr(cls, "tgz_md5", md5(root / cls.filename))
    return made


def cifar10(root: Path, monkeypatch) -> dict[str, np.ndarray]:
    parts = {**{f"data_batch_{number}": 10 for number in range(1, 6)}, "test_batch": 10}
    return cifar(root, monkeypatch, tv.CIFAR10, "cifar-10-batches-py", parts, "labels", "batches.meta", "label_names")


def test_cifar10_in_the_order_of_the_batches(tmp_path, monkeypatch, no_network):
    made = cifar10(tmp_path, monkeypatch)
    source = Torchvision("cifar10", root=str(tmp_path), **COLOUR)
    train = source.split("train")
    assert isinstance(train.images, torch.Tensor)
    assert train.images.shape == (50, 3, 32, 32)
    assert train.images.is_contiguous()
    assert np.array_equal(train.images[10:20].reshape(10, -1).numpy(), made["data_batch_2"])
    assert train.labels.tolist() == list(range(10)) * 5
    assert len(source.split("test").labels) == 10
    damaged = tmp_path / "cifar-10-batches-py/data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")  # a pickle with another checksum is not opened
    with pytest.raises(DataError, match=r"the files in .* are damaged"):
        source.split("train")


@pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter:DeprecationWarning")
def test_cifar10_from_its_archive(tmp_path, monkeypatch, no_network):
    cifar10(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py/data_batch_1").unlink()  # as after an interrupted extraction
    assert len(Torchvision("cifar10", root=str(tmp_path), download=False, **COLOUR).split("train").labels) == 50
    (tmp_path / "cifar-10-batches-py/data_batch_1").unlink()
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is damaged \(wrong checksum\)"):
        Torchvision("cifar10", root=str(tmp_path), download=False, **COLOUR).split("train")


def test_cifar100_takes_the_fine_labels(tmp_path, monkeypatch, no_network):
    parts = {"train": 200, "test": 100}
    cifar(tmp_path, monkeypatch, tv.CIFAR100, "cifar-100-python", parts, "fine_labels", "meta", "fine_label_names")
    source = Torchvision("cifar100", root=str(tmp_path), **COLOUR)
    assert source.split("train").labels.tolist() == list(range(100)) * 2
    assert source.task.num_classes == 100


def test_svhn(tmp_path, monkeypatch, no_network):
    sums = {}
    for part in ("train", "test"):
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
        file = tmp_path / f"{part}_32x32.mat"
        scipy.io.savemat(file, {"X": pixels, "y": np.arange(1, 11)[:, None]})
        sums[part] = ["http://localhost", file.name, md5(file)]
    monkeypatch.setattr(tv.SVHN, "split_list", sums)
    split = Torchvision("svhn", root=str(tmp_path), **COLOUR).split("train")
    assert isinstance(split.images, torch.Tensor)
    assert split.images.shape == (10, 3, 32, 32)
    assert split.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]  # 10 stands for the digit 0
    assert int(split.images[4, 2, 1, 7]) == int(pixels[1, 7, 2, 4])


@pytest.mark.parametrize(
    ("dataset", "place"),
    [
        ("cifar10", "put cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/ into {root},"),
        ("cifar100", "put cifar-100-python.tar.gz from"),
        (
            "mnist",
            "labels-idx1-ubyte.gz from https://ossci-datasets.s3.amazonaws.com/mnist/ into {root}/MNIST/raw",
        ),
        ("fashion_mnist", "into {root}/FashionMNIST/raw,"),
        ("svhn", "put train_32x32.mat, test_32x32.mat from http://ufldl.stanford.edu/housenumbers/ into {root},"),
    ],
)
def test_absent_data_says_which_files_go_where(tmp_path, no_network, dataset, place):
    moments = GREY if "mnist" in dataset else COLOUR
    for download, reason in ((False, "dataset.source.download=true"), (True, "no route to host")):
        with pytest.raises(ConfigError) as caught:
            Torchvision(dataset, root=str(tmp_path / "data"), download=download, **moments).split("train")
        assert place.format(root=tmp_path / "data") in str(caught.value)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("data/*"))
    assert socket.getdefaulttimeout() is None


def test_downloads_have_a_time_limit(tmp_path, monkeypatch):
    limits = []

    def slow(*_):
        limits.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib.request.urlopen", slow)
    with pytest.raises(ConfigError, match="timed out"):
        Torchvision("svhn", root=str(tmp_path), **COLOUR).split("train")
    assert set(limits) == {15.0}


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match="must be one of cifar10, cifar100"):
        Torchvision("cifar", root="x", **COLOUR)
    with pytest.raises(ConfigError, match="not 'val'"):
        Torchvision("cifar10", root="x", **COLOUR).split("val")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot write the data folder"):
        Torchvision("svhn", root=str(tmp_path / "file"), **COLOUR).split("train")
