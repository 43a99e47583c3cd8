"""The four coloured MNISTs by their definitions: classes, colours, splits and correlations."""

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.data.sources.cmnist_10 import CMNIST10
from robustlab.data.sources.cmnist_irm import CMNISTIrm
from robustlab.data.sources.cmnist_pairs import CMNISTPairs
from robustlab.data.sources.cmnist_subpop import CMNISTSubpop
from robustlab.data.sources.grey_images import grey_images
from tests.data.fixtures import digits_npz


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    digits_npz(folder / "mnist/mnist_12k.npz", train=6000, test=1000)
    return str(folder)


def pixels(split) -> torch.Tensor:
    assert isinstance(split.images, torch.Tensor)
    return split.images


def colours(split) -> torch.Tensor:
    assert split.attributes is not None
    return split.attributes


def disagree(split) -> float:
    return float((split.labels != colours(split)).double().mean())


def brightest(images: torch.Tensor) -> torch.Tensor:
    """Return the class that the fixture marks by its brightest pixel, for images [N, 28, 28]."""
    return images.flatten(1).argmax(1) % 28 - 4


ALL = [CMNISTIrm, CMNISTSubpop, CMNIST10, CMNISTPairs]


@pytest.mark.parametrize("cls", ALL)
def test_seeded_by_the_source_alone(root, cls):
    torch.manual_seed(1)
    one = cls(root=root).split("train")
    torch.manual_seed(2)
    two, other = cls(root=root).split("train"), cls(root=root, seed=1).split("train")
    assert torch.equal(pixels(one), pixels(two))
    assert torch.equal(one.labels, two.labels)
    assert torch.equal(colours(one), colours(two))
    assert not torch.equal(colours(one), colours(other))


@pytest.mark.parametrize("cls", ALL)
def test_shapes_are_those_announced(root, cls):
    source = cls(root=root)
    for name in source.splits:
        split = source.split(name)
        assert pixels(split).shape == (len(split.labels), *source.task.image_shape)
        assert pixels(split).dtype == torch.uint8
        assert int(split.labels.max()) == source.task.num_classes - 1
        assert int(colours(split).max()) == source.task.num_attributes - 1
    with pytest.raises(ConfigError, match="not 'exam'"):
        source.split("exam")


def test_irm(root):
    source = CMNISTIrm(root=root)
    assert source.splits == ("train", "test")
    assert "clean_labels" not in source.provides  # a quarter of the labels is wrong
    train, test = source.split("train"), source.split("test")
    assert (len(train.labels), len(test.labels)) == (5000, 1000)
    assert disagree(test) == pytest.approx(0.9, abs=0.03)
    even, odd = (train.labels != colours(train))[::2], (train.labels != colours(train))[1::2]
    assert float(even.double().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(odd.double().mean()) == pytest.approx(0.1, abs=0.03)
    # one channel is empty, and which one is the colour
    used = pixels(train).flatten(2).any(2)
    assert torch.equal(used.long().argmax(1), colours(train))
    assert bool((used.sum(1) == 1).all())
    # the test split is the last sixth in its order, every second pixel of it; digits below 5 are class 1
    grey = grey_images("mnist_npz", root=root, file=None, download=False)
    assert torch.equal(pixels(test).amax(1), grey.train[5000:, ::2, ::2])
    wrong = test.labels != (grey.train_labels[5000:] < 5).long()
    assert float(wrong.double().mean()) == pytest.approx(0.25, abs=0.04)


def test_irm_as_in_forks(root):
    source = CMNISTIrm(root=root, protocol="forks")
    assert source.splits == ("train", "val", "test")
    val, test = source.split("val"), source.split("test")
    grey = grey_images("mnist_npz", root=root, file=None, download=False)
    assert torch.equal(pixels(test).amax(1), grey.test[:, ::2, ::2])
    assert torch.equal(pixels(val).amax(1), grey.train[5000:, ::2, ::2])
    assert disagree(val) == pytest.approx(0.15, abs=0.04)
    assert disagree(test) == pytest.approx(0.9, abs=0.04)
    with pytest.raises(ConfigError, match="must be original or forks"):
        CMNISTIrm(root=root, protocol="mine")


def test_subpop(root):
    source = CMNISTSubpop(root=root)
    grey = grey_images("mnist_npz", root=root, file=None, download=False)
    start = 0
    for name, size in (("train", 3000), ("val", 1000), ("test", 2000)):
        split = source.split(name)
        assert len(split.labels) == size
        assert disagree(split) == pytest.approx(0.2, abs=0.04)
        digits = grey.train_labels[start : start + size]
        assert float((split.labels != (digits >= 5)).double().mean()) == pytest.approx(0.25, abs=0.04)
        assert torch.equal(pixels(split).amax(1), grey.train[start : start + size])
        assert not pixels(split)[:, 2].any()
        start += size


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_subpop_thinned_out(root, share):
    plain = CMNISTSubpop(root=root).split("train")
    by_colour = CMNISTSubpop(root=root, attribute_share=share).split("train")
    assert float(colours(by_colour).double().mean()) == pytest.approx(share, abs=0.005)
    kept = {image.numpy().tobytes() for image in pixels(plain)}
    assert all(image.numpy().tobytes() in kept for image in pixels(by_colour)[:50])
    by_label = CMNISTSubpop(root=root, label_share=share).split("train")
    assert float(by_label.labels.double().mean()) == pytest.approx(share, abs=0.005)
    with pytest.raises(ConfigError, match="label_share must lie between 0 and 1"):
        CMNISTSubpop(root=root, label_share=1.0)


def test_ten(root):
    source = CMNIST10(root=root, aligned_share=0.98)
    train, test = source.split("train"), source.split("test")
    for label in range(10):
        counts = torch.bincount(colours(train)[train.labels == label], minlength=10)
        assert int(counts[label]) == 588
        assert sorted(counts.tolist())[:-1] == [1] * 6 + [2] * 3
        assert torch.bincount(colours(test)[test.labels == label], minlength=10).tolist() == [10] * 10
    assert torch.equal(brightest(pixels(train).amax(1)), train.labels)
    red = pixels(train)[(train.labels == 0) & (colours(train) == 0)]
    assert int(red[:, 0].max()) == 255
    spread = {}
    for severity in (1, 4):
        images = pixels(CMNIST10(root=root, aligned_share=0.98, severity=severity).split("train"))
        cyan = images[(colours(train) == 5) & (train.labels == 5)].amax((2, 3)).double()
        spread[severity] = float(cyan[:, 0].mean())  # cyan has no red but for the noise
    assert spread[1] > 4 * spread[4]
    with pytest.raises(ConfigError, match="severity must be 1, 2, 3 or 4, not 5"):
        CMNIST10(root=root, severity=5)


def test_pairs(root):
    source = CMNISTPairs(root=root, correlation=0.9)
    train, val, test = (source.split(name) for name in source.splits)
    assert [len(split.labels) for split in (train, val, test)] == [4800, 1200, 1000]
    assert disagree(train) == pytest.approx(0.1, abs=0.02)
    for split in (val, test):
        assert disagree(split) == pytest.approx(0.8, abs=0.05)
        assert torch.bincount(colours(split), minlength=5).min() > 0.14 * len(split.labels)
    conflicting = train.labels != colours(train)
    steps = torch.bincount((colours(train) - train.labels)[conflicting] % 5, minlength=5)
    assert int(steps[0]) == 0
    assert int(steps[1:].min()) > 0.15 * int(conflicting.sum())
    # only pixels from 120 on are painted: the fixture has one of those in each image, the others are grey
    hues = torch.tensor([(255, 0, 0), (203, 255, 0), (0, 255, 102), (0, 102, 255), (204, 0, 255)], dtype=torch.uint8)
    coloured = (pixels(test).amin(1) != pixels(test).amax(1)).flatten(1)
    assert bool((coloured.sum(1) == 1).all())
    place = coloured.long().argmax(1)
    assert torch.equal(place % 28 - 4, torch.arange(1000) % 10)
    assert torch.equal(pixels(test).flatten(2)[torch.arange(1000), :, place], hues[colours(test)])
    assert torch.equal(test.labels, torch.arange(1000) % 10 // 2)
