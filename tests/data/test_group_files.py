"""Images with a table of groups beside them."""

import pytest
import torch

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.group_files import GroupFolder
from tests.data.fixtures import picture, values, write_csv

HEADER = ("file", "split", "y", "a")


def folder(root, *more):
    rows = [("x/1.png", "train", 0, 1), ("x/2.png", "train", 1, 0), ("3.png", "val", 1, 2), ("3b.png", "val", 0, 0),
            ("4.png", "2", 1, 1), ("5.png", "test", 0, 0), *more]  # fmt: skip
    for value, row in enumerate(rows):
        picture(root / row[0], value)
    write_csv(root / "metadata.csv", HEADER, rows)
    return root


@pytest.mark.parametrize("storage", ["resident", "streaming"])
def test_groups_follow_the_table(tmp_path, storage):
    root = folder(tmp_path / "data")
    picture(root / "unused.png", 99)
    source = GroupFolder(str(root), storage=storage, cache_dir=str(tmp_path / "cache"))
    assert source.task.class_names == ("0", "1")
    assert source.task.attribute_names == ("0", "1", "2")
    assert source.splits == ("train", "val", "test")
    train, val, test = (source.split(name) for name in source.splits)
    assert (values(train.images), values(val.images), values(test.images)) == ([0, 1], [2, 3], [4, 5])
    assert train.names == ("x/1.png", "x/2.png")
    assert train.attributes is not None
    assert test.attributes is not None
    assert (train.labels.tolist(), train.attributes.tolist()) == ([0, 1], [1, 0])
    assert (test.labels.tolist(), test.attributes.tolist()) == ([1, 0], [1, 0])
    assert train.attributes.dtype == torch.int64


def test_names_bound_the_numbers(tmp_path):
    source = GroupFolder(str(folder(tmp_path)), class_names=("no", "yes"), attribute_names=("red", "green"))
    with pytest.raises(DataError, match=r"column a: 1 value\(s\) are not one of 0, 1:\n  row 3: '2'"):
        source.split("train")


def test_other_columns_and_places(tmp_path):
    folder(tmp_path / "data")
    table = write_csv(
        tmp_path / "my.csv", ("name", "part", "label", "place"), [("x/1.png", 0, 0, 0), ("3.png", 0, 1, 1)]
    )
    columns = {"file_column": "name", "split_column": "part", "label_column": "label", "attribute_column": "place"}
    source = GroupFolder(str(tmp_path / "data"), table=str(table), **columns)
    assert values(source.split("train").images) == [0, 2]
    with pytest.raises(DataError, match="no image found"):
        source.split("test")


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"metadata\.csv does not exist; expected a CSV file with the columns file,"):
        GroupFolder(str(tmp_path / "nowhere")).split("train")
    root = folder(tmp_path, ("9.png", "validation", 0, 0))
    with pytest.raises(DataError, match=r"column split: 1 value\(s\) are not one of 0, train,"):
        GroupFolder(str(root)).split("train")
    folder(root, ("3.png", "test", 0, 0))
    with pytest.raises(DataError, match=r"1 image\(s\) are listed twice:\n  3\.png"):
        GroupFolder(str(root)).split("train")
    folder(root)
    (root / "x/2.png").unlink()
    with pytest.raises(DataError, match=r"1 image\(s\) are missing:\n  x/2\.png"):
        GroupFolder(str(root)).split("train")
    with pytest.raises(ConfigError, match="the splits train, val, test, not 'exam'"):
        GroupFolder(str(root)).split("exam")
