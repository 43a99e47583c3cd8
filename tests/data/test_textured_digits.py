"""Digits over textures: sizes, groups, what the backgrounds look like, and what the seed does."""

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.data.sources.group_tables import count
from robustlab.data.sources.textured_digits import TexturedDigits
from tests.data.fixtures import digits_npz

SIZES = {"train": 300, "val": 60, "test": 80}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    digits_npz(folder / "mnist/mnist_12k.npz", train=600, test=200)
    return str(folder)


def pixels(split) -> torch.Tensor:
    assert isinstance(split.images, torch.Tensor)
    return split.images


def test_groups_and_sizes(root):
    source = TexturedDigits(root=root, **SIZES)
    assert source.splits == ("train", "val", "test")
    assert source.task.class_names == ("round", "straight")
    tables = {name: count(source.split(name), source.task) for name in source.splits}
    for name, size in SIZES.items():
        share = 0.95 if name == "train" else 0.5
        assert sum(map(sum, tables[name])) == size
        for label, row in enumerate(tables[name]):
            assert row[label] == round(share * sum(row))
    assert TexturedDigits(root=root, correlation=1.0, **SIZES).split("train").labels.bincount().tolist() == [
        sum(row) for row in tables["train"]
    ]


def test_spec_sizes_take_the_whole_pool_of_the_12k_subset(real_data):
    source = TexturedDigits(root=str(real_data))
    splits = [source.split(name) for name in source.splits]
    assert [len(split.labels) for split in splits] == [5200, 1500, 1876]
    assert torch.cat([split.labels for split in splits]).bincount().tolist() == [4743, 3833]


def test_splits_share_no_image_and_more_training_images_leave_the_others_alone(root):
    small, large = (TexturedDigits(root=root, **{**SIZES, "train": train}) for train in (200, 300))
    for name in ("val", "test"):
        assert torch.equal(pixels(small.split(name)), pixels(large.split(name)))
    # what is drawn depends on the image: with one background for all, equal digits would give equal images
    agreeing = TexturedDigits(root=root, correlation=1.0, eval_correlation=1.0, **SIZES)
    seen = [image.numpy().tobytes() for name in SIZES for image in pixels(agreeing.split(name))]
    assert len(set(seen)) == sum(SIZES.values())


def test_backgrounds(root):
    split = TexturedDigits(root=root, **SIZES).split("train")
    assert split.attributes is not None
    images = pixels(split).double()  # the outer four rows and columns hold no strokes
    red, blue = images[:, 0, :4].mean((1, 2)), images[:, 2, :4].mean((1, 2))
    assert torch.equal(blue > red, split.attributes == 1)
    # pixels vary across the stripes, not along them
    across_columns = images.mean(1)[:, :4].mean(1).std(1)
    across_rows = images.mean(1)[:, :, :4].mean(2).std(1)
    assert torch.equal(across_rows > 2 * across_columns, split.attributes == 1)
    assert torch.equal(across_columns > 2 * across_rows, split.attributes == 0)


def test_digits_are_bright_and_lie_at_random_places(root):
    source = TexturedDigits(root=root, shortcut="patch", **SIZES)
    images = pixels(source.split("train")).double().mean(1)
    places = images.flatten(1).argmax(1)
    # the brightest pixel of digit d lies at 4 + d plus an offset of 0..4 in both directions
    offset = places // 32 - places % 32
    assert int(offset.abs().max()) == 4
    assert len(offset.unique()) == 9
    assert float(images.flatten(1).amax(1).min()) > 150


def test_the_patch_is_the_only_colour(root):
    split = TexturedDigits(root=root, shortcut="patch", correlation=0.5, **SIZES).split("train")
    assert split.attributes is not None
    images = pixels(split).double()
    patch = images[:, :, 1:6, 1:6].mean((2, 3))
    assert torch.equal(patch[:, 2] > patch[:, 0], split.attributes == 1)
    border = images[:, :, 7:, 30:].mean((2, 3))
    assert float((border.amax(1) - border.amin(1)).mean()) < 10


def test_clothes_and_embedded_digits(tmp_path):
    source = TexturedDigits(images="digits", train=100, val=20, test=30)
    assert pixels(source.split("test")).shape == (30, 3, 32, 32)
    clothes = TexturedDigits(images="fashion_mnist", root=str(tmp_path))
    assert clothes.task.class_names == ("tops", "shoes")
    assert clothes.classes == ((0, 2, 4, 6), (5, 7, 9))
    with pytest.raises(ConfigError, match="fashion_mnist is not in"):
        clothes.split("train")


def test_seeded_by_the_source_alone(root):
    torch.manual_seed(1)
    one = TexturedDigits(root=root, **SIZES).split("train")
    torch.manual_seed(2)
    two, other = TexturedDigits(root=root, **SIZES).split("train"), TexturedDigits(root=root, seed=1, **SIZES)
    assert torch.equal(pixels(one), pixels(two))
    assert not torch.equal(pixels(one), pixels(other.split("train")))


def test_what_was_drawn_is_recorded():
    """Written down once: a change of the draws would void every recorded result."""
    split = TexturedDigits(images="digits", train=100, val=20, test=30).split("train")
    assert split.attributes is not None
    assert split.labels[:20].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1]
    assert torch.nonzero(split.labels != split.attributes).flatten().tolist() == [36, 49, 54, 55, 60]
    assert pixels(split)[3, :, 10, 12].tolist() == [34, 57, 105]
    assert pixels(split)[50, :, 0, 0].tolist() == [73, 64, 43]


def test_mistakes(root):
    with pytest.raises(ConfigError, match=r"need 8576 images, but mnist_npz has 560 of these classes"):
        TexturedDigits(root=root).split("train")
    with pytest.raises(ConfigError, match="shortcut must be background or patch"):
        TexturedDigits(shortcut="frame")
    with pytest.raises(ConfigError, match=r"correlation must lie in \[0, 1\]"):
        TexturedDigits(correlation=95)
    with pytest.raises(ConfigError, match="size >= 28"):
        TexturedDigits(size=16)
    with pytest.raises(ConfigError, match="not 'exam'"):
        TexturedDigits(root=root).split("exam")
