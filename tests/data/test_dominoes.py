"""Dominoes: which halves are put together, how often they agree, and that splits share no image."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision.datasets as tv

from robustlab.core.errors import ConfigError
from robustlab.data.sources.dominoes import Dominoes
from robustlab.data.sources.group_tables import count
from tests.data.fixtures import digits_npz


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Write CIFAR-10's python version, 400 + 200 images that hold their number, and grey images of their class."""
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    sums = []
    for number in range(6):
        count_, first = (80, 80 * number) if number < 5 else (200, 400)
        data = np.zeros((count_, 3072), np.uint8)
        data[:, 0], data[:, 1] = (np.arange(count_) + first) // 256, (np.arange(count_) + first) % 256
        part = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        (base / part).write_bytes(pickle.dumps({"data": data, "labels": [i % 10 for i in range(count_)]}))
        sums.append([part, hashlib.md5((base / part).read_bytes()).hexdigest()])
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": ["name"]}))
    meta = hashlib.md5((base / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(tv.CIFAR10, "train_list", sums[:-1])
    monkeypatch.setattr(tv.CIFAR10, "test_list", sums[-1:])
    monkeypatch.setattr(tv.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta})
    digits_npz(tmp_path / "mnist/mnist_12k.npz", train=100, test=40)
    return str(tmp_path)


def make(root, **more) -> Dominoes:
    return Dominoes(images="mnist_npz", root=root, **{"val": 20, **more})


def pixels(split) -> torch.Tensor:
    assert isinstance(split.images, torch.Tensor)
    return split.images


def below(split) -> list[int]:
    """Return the numbers of the CIFAR-10 images."""
    return (pixels(split)[:, 0, 32, 0].long() * 256 + pixels(split)[:, 0, 32, 1]).tolist()


def above(split) -> torch.Tensor:
    """Return the classes of the grey images: their brightest pixel lies at 4 + class, in a frame of 2."""
    return pixels(split)[:, 0, :32].flatten(1).argmax(1) % 32 - 6


def test_halves_and_groups(root):
    source = make(root)
    assert source.task.image_shape == (3, 64, 32)
    assert source.task.group_names == (
        "automobile-digit_0", "automobile-digit_1", "truck-digit_0", "truck-digit_1",
    )  # fmt: skip
    splits = {name: source.split(name) for name in source.splits}
    assert [len(split.labels) for split in splits.values()] == [60, 20, 40]
    for split in splits.values():
        assert split.attributes is not None
        numbers = torch.tensor(below(split))
        assert torch.equal((numbers % 10 == 9).long(), split.labels)
        assert bool(((numbers % 10 == 9) | (numbers % 10 == 1)).all())
        assert torch.equal(above(split), split.attributes)
        upper = pixels(split)[:, :, :32]
        assert torch.equal(upper[:, 0], upper[:, 1])
        assert torch.equal(upper[:, 0], upper[:, 2])
        assert not upper[:, :, :2].any()
    assert min(below(splits["test"])) >= 400
    assert not set(below(splits["train"])) & set(below(splits["val"]))


def test_splits_share_no_upper_half(root):
    source = make(root)
    halves = {
        name: {image.numpy().tobytes() for image in pixels(source.split(name))[:, 0, :32]} for name in source.splits
    }
    assert not halves["train"] & halves["val"]
    assert not (halves["train"] | halves["val"]) & halves["test"]
    assert [len(halves[name]) for name in source.splits] == [18, 2, 8]  # each is used several times


def test_correlation(root):
    source = make(root, correlation=0.9)
    for name, share in (("train", 0.9), ("val", 0.5), ("test", 0.5)):
        for label, row in enumerate(count(source.split(name), source.task)):
            assert row[label] == round(share * sum(row))
    reverse = make(root, correlation=0.0)
    train = reverse.split("train")
    assert torch.equal(train.attributes, 1 - train.labels)


def test_sizes_and_classes(root):
    source = make(root, train=30, test=10, above=(7, 3), below=(0, 5))
    splits = [source.split(name) for name in source.splits]
    assert [len(split.labels) for split in splits] == [30, 20, 10]
    assert source.task.class_names == ("airplane", "dog")
    assert source.task.attribute_names == ("digit_7", "digit_3")
    for split in splits:
        assert split.attributes is not None
        assert torch.equal(above(split), torch.tensor([7, 3])[split.attributes])
    assert Dominoes(root=root).task.attribute_names == ("coat", "dress")


def test_seeded_by_the_source_alone(root):
    torch.manual_seed(1)
    one = make(root).split("train")
    torch.manual_seed(2)
    assert torch.equal(pixels(one), pixels(make(root).split("train")))
    assert not torch.equal(pixels(one), pixels(make(root, seed=1).split("train")))


def test_mistakes(root, tmp_path):
    with pytest.raises(ConfigError, match="above must be two different classes"):
        make(root, above=(1, 1))
    with pytest.raises(ConfigError, match="below must be two different classes"):
        make(root, below=(1, 10))
    with pytest.raises(ConfigError, match="must be release or parquet"):
        make(root, cifar="pickle")
    with pytest.raises(ConfigError, match=r"dataset\.source\.train=70 of 80 images"):
        make(root, train=70).split("train")
    with pytest.raises(ConfigError, match="not 'exam'"):
        make(root).split("exam")
    with pytest.raises(ConfigError, match=r"cifar10/plain_text.*no \.parquet file"):
        make(root, cifar="parquet").split("train")
    digits_npz(tmp_path / "mnist/mnist_12k.npz", train=10, test=10)
    with pytest.raises(ConfigError, match="too few images of class 0 for the train split"):
        make(root).split("train")


@pytest.mark.real_data
@pytest.mark.slow
def test_real_cifar(real_data, tmp_path):
    source = Dominoes(images="mnist_npz", root=str(real_data), cifar="parquet", cache_dir=str(tmp_path))
    assert count(source.split("test"), source.task) == ((500, 500), (500, 500))
    train = source.split("train")
    assert len(train.labels) == 9000
    moments = (pixels(train) / 255.0).mean((0, 2, 3)).tolist()
    assert moments == pytest.approx([0.291, 0.283, 0.280], abs=2e-3)
