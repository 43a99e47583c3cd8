"""Attributes, groups and splits of one's own: what `Data` tells the engine, and what it tells a method."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import Split
from robustlab.data.noise.transitions import Symmetric
from robustlab.data.run_data import Data
from robustlab.data.sources.image_folder import ImageFolder
from robustlab.data.told_groups import split_groups, train_groups
from robustlab.methods.erm import ERM
from tests.data.grouped_source import Grouped, ThreeWay, biased
from tests.data.toy_source import Toy


class ToldGroups(ERM):
    requires = frozenset({"groups"})


def grouped(count: int = 40, **arguments) -> Data:
    return Data(Grouped(ThreeWay(count), biased), seed=0, **arguments)


def test_attributes_come_in_the_order_of_the_evaluation():
    data = grouped()
    assert data.evaluation_splits == ("val", "test")
    for split in ("train", "val", "test"):
        index = torch.cat([batch.index for batch in data.evaluation(split, 7).epoch(0)])
        targets = torch.cat([b.targets for b in data.evaluation(split, 7).epoch(0) if b.targets is not None])
        attributes = data.attributes(split)
        assert attributes is not None
        assert torch.equal(attributes, biased(split, targets)[index])
        assert torch.equal(data.labels(split), targets)


def test_groups_are_counted():
    data = grouped()
    counts = data.group_counts("train")
    assert counts is not None
    assert counts.sum() == 40
    assert counts.tolist() == [17, 3, 2, 18]  # landbird-land, landbird-water, waterbird-land, waterbird-water
    assert data.task.group_names[1] == "landbird-water"
    test = data.group_counts("test")
    assert test is not None
    assert test.tolist() == [5, 5, 5, 5]


def test_only_a_method_that_says_so_is_told_groups():
    data = grouped()
    assert "groups" in data.provides
    groups = train_groups(data, ToldGroups())
    assert torch.equal(groups, data.assigned * 2 + biased("train", data.assigned))
    for split in ("train", "val", "test"):
        attributes = data.attributes(split)
        assert attributes is not None
        assert torch.equal(split_groups(data, split, ToldGroups()), data.labels(split) * 2 + attributes)
    with pytest.raises(AssertionError, match="ERM asks for groups"):
        train_groups(data, ERM())
    with pytest.raises(AssertionError, match="ERM asks for groups"):
        split_groups(data, "val", ERM())


def test_groups_of_a_training_set_follow_the_assigned_labels():
    data = grouped(400, noise=Symmetric(rate=0.5))
    assert data.clean is not None
    assert torch.equal(train_groups(data, ToldGroups()), data.assigned * 2 + biased("train", data.clean))


def test_a_subset_and_a_share_keep_each_sample_with_its_attribute():
    data = Data(Grouped(Toy(200, 2), biased), seed=0, subset=100, val_fraction=0.3)
    assert data.evaluation_splits == ("val", "test")
    everything = biased("train", torch.arange(200) % 2)
    for split, indices in (("train", data.train_indices), ("val", data.val_indices)):
        attributes = data.attributes(split)
        assert attributes is not None
        assert torch.equal(attributes, everything[indices])
    assert len(train_groups(data, ToldGroups())) == 200


def test_without_attributes_nothing_is_known_of_groups():
    data = Data(ThreeWay(), seed=0)
    assert "groups" not in data.provides
    assert data.attributes("train") is None
    assert data.group_counts("test") is None
    with pytest.raises(ConfigError, match="attributes of the val split are not known"):
        split_groups(data, "val", ToldGroups())


def test_which_splits_are_evaluated():
    assert Data(Toy(), seed=0).evaluation_splits == ("test",)
    assert Data(Toy(), seed=0, val_fraction=0.2).evaluation_splits == ("val", "test")
    source = ThreeWay()
    source.splits = ("train", "shifted", "val", "test")
    assert Data(source, seed=0).evaluation_splits == ("shifted", "val", "test")


def test_a_validation_split_of_its_own_is_served_and_is_not_cut_from_the_training_samples():
    source = ThreeWay()
    data = Data(source, seed=0)
    batch = next(data.evaluation("val", 40).epoch(0))
    assert (len(batch), len(data.val_indices), len(data.train_indices)) == (20, 0, 40)
    assert torch.equal(data.labels("val"), source.split("val").labels)
    with pytest.raises(ConfigError, match=r"already has a validation split; set dataset\.val_fraction=0, not 0\.2"):
        Data(source, seed=0, val_fraction=0.2)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (torch.zeros(39, dtype=torch.int64), r"the train split: \(39,\) attributes for 40 samples"),
        (
            torch.full((40,), 2),
            r"the train split: 40 attribute\(s\) outside 0\.\.1, the first in row 0 \(attribute 2\)",
        ),
        (torch.full((40,), -1), r"40 attribute\(s\) outside 0\.\.1"),
    ],
)
def test_damaged_attributes_are_reported(attributes, message):
    with pytest.raises(DataError, match=message):
        Data(Grouped(ThreeWay(), lambda name, labels: attributes), seed=0)


class Named(ThreeWay):
    """With file names, of which one may be changed, and labels, of which one may be changed."""

    def __init__(self, *, name: str = "7.jpg", label: int = 1, order: int = 1, **options) -> None:
        super().__init__(**options)
        self.name, self.label, self.order = name, label, order

    def split(self, name: str) -> Split:
        split = super().split(name)
        names = [f"{row}.jpg" for row in range(len(split.labels))]
        names[7], split.labels[7] = self.name, self.label
        return replace(split, labels=split.labels, names=tuple(names[:: self.order]))


def test_a_fingerprint_is_that_of_names_order_and_labels():
    reference = Data(Named(), seed=0)
    same = Data(Named(), seed=1, noise=Symmetric(rate=0.5), subset=20)
    for split in ("train", "val", "test"):
        assert reference.fingerprint(split) == same.fingerprint(split)
    others = [Named(name="8.jpg"), Named(label=0), Named(order=-1), Named(count=42)]
    prints = {Data(source, seed=0).fingerprint("train") for source in others}
    assert len(prints | {reference.fingerprint("train")}) == 5
    assert len(reference.fingerprint("train")) == 64


def test_without_names_a_fingerprint_is_that_of_the_images():
    class Altered(ThreeWay):
        def split(self, name: str) -> Split:
            split = super().split(name)
            assert isinstance(split.images, torch.Tensor)
            split.images[39, 2, 7, 7] ^= 1
            return split

    reference = Data(ThreeWay(), seed=0).fingerprint("train")
    assert Data(ThreeWay(lazy=True), seed=0, storage="streaming").fingerprint("train") != ""
    assert Data(Altered(), seed=0).fingerprint("train") != reference
    assert Data(ThreeWay(), seed=5).fingerprint("train") == reference


def test_a_share_of_the_training_split_has_a_fingerprint_of_its_own():
    data, other = (Data(Toy(), seed=0, val_fraction=share) for share in (0.2, 0.3))
    assert data.fingerprint("train") == other.fingerprint("train") != data.fingerprint("val")
    assert data.fingerprint("val") != other.fingerprint("val")


def test_files_are_known_by_their_names(tmp_path: Path):
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    found = ImageFolder(str(tmp_path)).split("train")
    assert found.names == ("train/a/0.png", "train/a/1.png", "train/b/0.png", "train/b/1.png")
    before = Data(ImageFolder(str(tmp_path)), seed=0).fingerprint("train")
    (tmp_path / "train" / "a" / "1.png").rename(tmp_path / "train" / "a" / "2.png")
    assert Data(ImageFolder(str(tmp_path)), seed=0).fingerprint("train") != before
