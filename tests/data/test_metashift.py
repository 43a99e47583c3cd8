"""MetaShift cats and dogs: four folders pooled, split as in SubpopBench once the files are sorted."""

from pathlib import Path

import numpy as np
import pytest

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.metashift import MetaShift
from tests.data.fixtures import picture, values

CELLS = {
    "train/cat/cat(indoor)": 30,
    "train/dog/dog(outdoor)": 26,
    "test/cat/cat(outdoor)": 14,
    "test/dog/dog(indoor)": 10,
}


def animals(root: Path) -> Path:
    value = 0
    for folder, number in CELLS.items():
        for index in range(number):
            picture(root / folder / f"{index:03d}.jpg", value, (7, 5))
            value += 1
    return root


def test_splits_are_drawn_once_from_the_sorted_pool(tmp_path):
    source = MetaShift(str(animals(tmp_path)), size=4)
    assert source.task.group_names == ("dog-outdoor", "dog-indoor", "cat-outdoor", "cat-indoor")
    splits = {name: source.split(name) for name in source.splits}
    # what SubpopBench's two draws give for 80 files, numbered as they are pooled
    generator = np.random.RandomState(42)
    test = generator.choice(np.arange(80), size=20, replace=False)
    val = generator.choice(np.setdiff1d(np.arange(80), test), size=8, replace=False)
    assert values(splits["test"].images) == sorted(test.tolist())
    assert values(splits["val"].images) == sorted(val.tolist())
    assert sorted(value for split in splits.values() for value in values(split.images)) == list(range(80))
    groups = np.repeat([3, 0, 2, 1], list(CELLS.values()))
    for split in splits.values():
        assert split.attributes is not None
        assert split.names is not None
        assert (split.labels * 2 + split.attributes).tolist() == groups[values(split.images)].tolist()
    assert splits["val"].names[0].startswith("train/cat/cat(indoor)/")


def test_shares_are_settings(tmp_path):
    source = MetaShift(str(animals(tmp_path)), size=4, test_share=0.5, val_share=0.25)
    assert [len(source.split(name).labels) for name in source.splits] == [20, 20, 40]


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"cat\(indoor\) does not exist; expected MetaShift-Cat-Dog-indoor-outdoor"):
        MetaShift(str(tmp_path / "nowhere")).split("train")
    root = animals(tmp_path)
    for file in (root / "test/dog/dog(indoor)").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"1 folder\(s\) without an image:\n  test/dog/dog\(indoor\)"):
        MetaShift(str(root)).split("train")
