"""scripts/prepare_data.py: counts by class and group, warnings, tables that can be read again, exit codes."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from robustlab.data.sources.group_files import GroupFolder
from robustlab.data.sources.group_tables import read_columns
from robustlab.data.sources.waterbirds import Waterbirds
from tests.data.fixtures import values
from tests.data.test_waterbirds import birds


@pytest.fixture
def prepare() -> Callable[[list[str]], int]:
    path = Path(__file__).parents[2] / "scripts" / "prepare_data.py"
    spec = importlib.util.spec_from_file_location("prepare_data", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def paths(tmp_path: Path, root: Path) -> list[str]:
    return [f"dataset.source.root={root}", f"paths.cache_dir={tmp_path / 'cache'}", "dataset.source.size=6"]


def test_groups_are_counted_compared_and_written(tmp_path, prepare, capsys):
    root, table = birds(tmp_path / "data"), tmp_path / "tables" / "birds.csv"
    assert prepare(["waterbirds", "--table", str(table), *paths(tmp_path, root)]) == 0
    out, err = capsys.readouterr()
    assert "train: 4 images in " in out
    assert (
        "class      land  water  all\nlandbird      1      1    2\nwaterbird     1      1    2\nall           2" in out
    )
    assert "warning: val: landbird-land (g0) has 0 images, the published data set has 467" in err
    assert len(err.splitlines()) == 12
    assert f"{table}: 8 rows" in out
    columns = read_columns(table, ("index", "split", "y", "a", "g"))
    assert columns["split"] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert columns["index"] == ["0", "1", "2", "3", "0", "1", "0", "1"]
    assert [2 * int(y) + int(a) for y, a in zip(columns["y"], columns["a"], strict=True)] == list(
        map(int, columns["g"])
    )
    again = GroupFolder(str(root), table=str(table), size=6, stretch=True)
    for name in again.splits:
        one, other = again.split(name), Waterbirds(str(root), size=6).split(name)
        assert values(one.images) == values(other.images)
        assert one.labels.tolist() == other.labels.tolist()
        assert one.attributes is not None
        assert other.attributes is not None
        assert one.attributes.tolist() == other.attributes.tolist()


def test_sets_without_groups(tmp_path, prepare, capsys):
    table = tmp_path / "digits.csv"
    assert prepare(["digits", f"--table={table}"]) == 0
    out, err = capsys.readouterr()
    assert "test: 359 images in " in out
    assert "per class [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]" in out
    assert err == ""
    assert table.read_text().splitlines()[1] == "0,,train,1,-1,-1"


def test_data_made_here_agree_with_nothing_published(tmp_path, prepare, capsys):
    assert prepare(["digits_bg/embedded", "dataset.source.train=60"]) == 0
    out, err = capsys.readouterr()
    assert "brown_vertical  blue_horizontal" in out
    assert (err, "published" in out) == ("", False)


def test_exit_codes(tmp_path, prepare, capsys):
    assert prepare([]) == 2
    assert prepare(["--help"]) == 0
    assert "celeba/streaming" in capsys.readouterr().out
    assert prepare(["birds"]) == 2
    assert prepare(["digits", "--table"]) == 2
    capsys.readouterr()
    assert prepare(["celeba", *paths(tmp_path, tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1  # one message, in one line
    root = birds(tmp_path / "data")
    (root / "001.Black_footed_Albatross/b.jpg").unlink()
    assert prepare(["waterbirds", *paths(tmp_path, root)]) == 3
    assert "1 image(s) are missing:\n  001.Black_footed_Albatross/b.jpg" in capsys.readouterr().err
    assert prepare(["waterbirds", "dataset.source.sise=4"]) == 2
