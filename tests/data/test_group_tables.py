"""Metadata files, whole and damaged; counts of groups and the tables that are written."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.sources.group_tables import codes, count, differences, read_columns, show, write_table

TASK = TaskSpec(2, (3, 4, 4), (0.5,) * 3, (0.5,) * 3, ("landbird", "waterbird"), ("land", "water"))


class Source(DataSource):
    task = TASK
    splits = ("train", "test")

    def split(self, name: str) -> Split:
        labels, attributes = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1])
        return Split(torch.zeros((3, 3, 4, 4), dtype=torch.uint8), labels, attributes, ("a,b.jpg", "c.jpg", "d.jpg"))


def test_columns_are_found_by_name(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('\ufeffid, y ,file\n1,0,"a, b.jpg"\n\n2, 1,c.jpg\n', encoding="utf-8")
    assert read_columns(path, ("file", "y")) == {"file": ["a, b.jpg", "c.jpg"], "y": ["0", "1"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,file\n1,a.jpg\n", "no column y, place; it has id, file"),
        ("", "no column file, y, place; it has none"),
        ("file,y,place\na.jpg,0,1\nb.jpg,0\n", r"1 row\(s\) do not have 3 fields:\n  row 2: 2 fields"),
    ],
)
def test_tables_with_holes(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_columns(path, ("file", "y", "place"))


def test_a_table_that_is_no_text(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(DataError, match="not a CSV file"):
        read_columns(path, ("file",))


def test_unknown_values_are_listed_with_their_rows():
    assert codes(["1", "0"], {"0": 0, "1": 1}, where="split") == [1, 0]
    with pytest.raises(DataError, match=r"split: 2 value\(s\) are not one of 0, 1:\n  row 2: '3'\n  row 3: ''"):
        codes(["1", "3", ""], {"0": 0, "1": 1}, where="split")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=40))
def test_groups_and_back(cells):
    task = TaskSpec(3, (1, 2, 2), (0.5,), (0.5,), (), ("a", "b", "c", "d"))
    labels, attributes = (torch.tensor(column) for column in zip(*cells, strict=True))
    groups = labels * task.num_attributes + attributes
    assert torch.equal(groups // task.num_attributes, labels)
    assert torch.equal(groups % task.num_attributes, attributes)
    table = count(Split(torch.zeros((len(cells), 1, 2, 2), dtype=torch.uint8), labels, attributes), task)
    assert [n for row in table for n in row] == torch.bincount(groups, minlength=12).tolist()


def test_show_has_sums_and_names():
    assert show(((3498, 184), (56, 1057)), TASK).splitlines() == [
        "class      land  water   all",
        "landbird   3498    184  3682",
        "waterbird    56   1057  1113",
        "all        3554   1241  4795",
    ]
    plain = TaskSpec(2, (1, 2, 2), (0.5,), (0.5,))
    assert show(((3,), (4,)), plain).splitlines() == ["class  images", "0           3", "1           4"]


def test_differences_name_group_and_both_counts():
    assert differences(((1, 2), (3, 4)), ((1, 2), (3, 4)), TASK) == []
    assert differences(((1, 2), (3, 4)), ((1, 2), (5, 4)), TASK) == [
        "waterbird-land (g2) has 3 images, the published data set has 5"
    ]


def test_written_table(tmp_path):
    path = tmp_path / "new" / "table.csv"
    assert write_table(path, Source(), ("train", "test")) == 6
    lines = path.read_text().splitlines()
    assert lines[:4] == [
        "index,file,split,y,a,g",
        '0,"a,b.jpg",train,0,1,1',
        "1,c.jpg,train,1,0,2",
        "2,d.jpg,train,1,1,3",
    ]
    assert lines[4] == '0,"a,b.jpg",test,0,1,1'
    with pytest.raises(ConfigError, match="cannot write the table"):
        write_table(Path(path, "below_a_file.csv"), Source(), ("train",))
