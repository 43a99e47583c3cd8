"""Sources of grey images (an .npz, the release's files, scikit-learn), and errors in them."""

import gzip
import struct

import numpy as np
import pytest
import torch

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.grey_images import grey_images
from tests.data.fixtures import digits_npz


def load(images, root, **more):
    return grey_images(images, root=str(root), **{"file": None, "download": False, **more})


def test_npz_in_its_place_or_anywhere(tmp_path):
    path = digits_npz(tmp_path / "mnist/mnist_12k.npz", train=30, test=20)
    grey = load("mnist_npz", tmp_path)
    assert (grey.train.shape, grey.test.shape, grey.train.dtype) == ((30, 28, 28), (20, 28, 28), torch.uint8)
    assert grey.test_labels.tolist() == [*range(10)] * 2
    assert int(grey.train[13, 7, 7]) == 255
    images, labels = load("mnist_npz", "nowhere", file=str(path)).pooled
    assert torch.equal(images, torch.cat([grey.train, grey.test]))
    assert torch.equal(labels, torch.cat([grey.train_labels, grey.test_labels]))


def test_release(tmp_path):
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        for stem, array in (("images-idx3", np.full((count, 28, 28), count)), ("labels-idx1", np.arange(count) % 10)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (raw / f"{part}-{stem}-ubyte.gz").write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))
    grey = load("fashion_mnist", tmp_path)
    assert grey.train.shape == (20, 28, 28)
    assert int(grey.test[3, 2, 1]) == 10
    with pytest.raises(ConfigError, match="mnist is not in"):
        load("mnist", tmp_path)


def test_embedded_digits_are_framed_like_mnist(tmp_path):
    grey = load("digits", tmp_path)
    assert (len(grey.train), len(grey.test)) == (1438, 359)
    assert grey.train.shape[1:] == (28, 28)
    assert not grey.train[:, :4].any()
    assert not grey.train[:, :, -4:].any()
    assert int(grey.train[:, 4:24, 4:24].max()) > 200


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"mnist_12k\.npz does not exist; .*dataset\.source\.images=digits"):
        load("mnist_npz", tmp_path)
    with pytest.raises(ConfigError, match="must be mnist_npz, mnist, fashion_mnist or digits, not 'emnist'"):
        load("emnist", tmp_path)
    path = tmp_path / "mnist/mnist_12k.npz"
    path.parent.mkdir()
    good = {"train_images": np.zeros((10, 28, 28), np.uint8), "train_labels": np.arange(10),
            "test_images": np.zeros((10, 28, 28), np.uint8), "test_labels": np.arange(10)}  # fmt: skip

    def refused(message, **changes):
        np.savez(path, **{key: value for key, value in {**good, **changes}.items() if value is not None})
        with pytest.raises(DataError, match=message):
            load("mnist_npz", tmp_path)

    refused("no array test_labels; it has train_images,", test_labels=None)
    refused(r"train_images are float64 \(10, 28, 28\)", train_images=np.zeros((10, 28, 28)))
    refused(r"test_images are uint8 \(9, 28, 28\), expected uint8 \(10, 28, 28\)", test_images=good["test_images"][:9])
    refused("test_labels: 1 label\\(s\\) outside 0..9, the first in row 9", test_labels=np.arange(1, 11))
    np.savez(path, **good)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"not an \.npz file that can be read"):
        load("mnist_npz", tmp_path)
