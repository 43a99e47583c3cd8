"""Waterbirds in the layout of its release: groups, sizes, published counts, and what can be wrong with the files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.group_tables import count, differences
from robustlab.data.sources.waterbirds import Waterbirds
from tests.data.fixtures import picture, values, write_csv

HEADER = ("img_id", "img_filename", "y", "split", "place", "place_filename")
ROWS = [  # file, y, split, place
    ("004.Groove_billed_Ani/a.jpg", 0, 0, 0), ("001.Black_footed_Albatross/b.jpg", 1, 0, 1),
    ("001.Black_footed_Albatross/c.jpg", 1, 1, 0), ("004.Groove_billed_Ani/d.jpg", 0, 2, 1),
    ("004.Groove_billed_Ani/e.jpg", 0, 0, 1), ("001.Black_footed_Albatross/f.jpg", 1, 0, 0),
    ("004.Groove_billed_Ani/g.jpg", 0, 1, 1), ("001.Black_footed_Albatross/h.jpg", 1, 2, 1),
]  # fmt: skip


def metadata(root: Path, rows) -> Path:
    lines = [
        (i, file, y, split, place, f"/f/forest/{i}.jpg") for i, (file, y, split, place) in enumerate(rows, start=1)
    ]
    write_csv(root / "metadata.csv", HEADER, lines)
    return root


def birds(root: Path, rows=ROWS) -> Path:
    for value, row in enumerate(rows):
        picture(root / row[0], value, (9, 6))
    (root / "RELEASE_v1.0.txt").write_text("notes")
    return metadata(root, rows)


@pytest.mark.parametrize("storage", ["resident", "streaming"])
def test_splits_and_groups(tmp_path, storage):
    source = Waterbirds(str(birds(tmp_path / "data")), size=8, storage=storage, cache_dir=str(tmp_path / "cache"))
    assert source.task.group_names == ("landbird-land", "landbird-water", "waterbird-land", "waterbird-water")
    assert source.task.image_shape == (3, 8, 8)
    expected = {"train": ([0, 1, 4, 5], [0, 3, 1, 2]), "val": ([2, 6], [2, 1]), "test": ([3, 7], [1, 3])}
    for name, (pixels, groups) in expected.items():
        split = source.split(name)
        assert split.attributes is not None
        assert values(split.images) == pixels
        assert (split.labels * 2 + split.attributes).tolist() == groups
    assert source.split("val").names == ("001.Black_footed_Albatross/c.jpg", "004.Groove_billed_Ani/g.jpg")


def test_the_aspect_ratio_is_ignored(tmp_path):
    root = birds(tmp_path)
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, :6] = 200  # the left half
    Image.fromarray(wide).save(root / ROWS[0][0], "PNG")
    images = Waterbirds(str(root), size=4).split("train").images
    assert isinstance(images, torch.Tensor)
    assert images[0, 0, 0].tolist() == [200, 178, 22, 0]  # a cut square would show 200, 200


def test_published_counts(tmp_path):
    """A metadata file with the published groups gives the published table."""
    published = {
        "train": ((3498, 184), (56, 1057), 4795),
        "val": ((467, 466), (133, 133), 1199),
        "test": ((2255, 2255), (642, 642), 5794),
    }
    cells = [
        (y, split, place)
        for split, table in enumerate(published.values())
        for y in (0, 1)
        for place in (0, 1)
        for _ in range(table[y][place])
    ]
    order = np.random.default_rng(0).permutation(len(cells))
    metadata(tmp_path, [(f"{i:05d}.jpg", *cells[place]) for i, place in enumerate(order)])
    source = Waterbirds(str(tmp_path))
    rows = source.read_rows()
    for name, (landbirds, waterbirds, total) in published.items():
        found = [[0, 0], [0, 0]]
        for y, a in zip(rows[name].labels, rows[name].attributes, strict=True):
            found[y][a] += 1
        assert (tuple(found[0]), tuple(found[1])) == (landbirds, waterbirds) == source.expected[name]
        assert len(rows[name].files) == total


def test_other_counts_are_told(tmp_path):
    source = Waterbirds(str(birds(tmp_path)), size=4)
    found = differences(count(source.split("val"), source.task), source.expected["val"], source.task)
    assert found[1] == "landbird-water (g1) has 1 images, the published data set has 466"
    assert len(found) == 4


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"metadata\.csv does not exist; expected waterbird_complete95_forest2water2"):
        Waterbirds(str(tmp_path / "nowhere")).split("train")
    root = birds(tmp_path)

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            Waterbirds(str(root), size=4).split("train")

    write_csv(root / "metadata.csv", HEADER[:4], [(1, *ROWS[0][:3])])
    refused("no column place; it has img_id, img_filename, y, split")
    metadata(root, [*ROWS[:-1], (ROWS[-1][0], 1, 3, 1)])
    refused(r"column split: 1 value\(s\) are not one of 0, 1, 2:\n  row 8: '3'")
    metadata(root, [*ROWS[:-1], (ROWS[-1][0], 2, 2, 1)])
    refused(r"column y: 1 value\(s\) are not one of 0, 1:\n  row 8: '2'")
    metadata(root, [*ROWS[:-1], (ROWS[-1][0], 1, 2, "land")])
    refused(r"column place: .*\n  row 8: 'land'")
    metadata(root, ROWS[:-1])
    refused(r"1 image\(s\) have no row; remove them or add the rows:\n  001\.Black_footed_Albatross/h\.jpg")
    metadata(root, [*ROWS, ROWS[0]])
    refused(r"1 image\(s\) are listed twice:\n  004\.Groove_billed_Ani/a\.jpg")
    metadata(root, ROWS)
    (root / ROWS[1][0]).rename(root / "001.Black_footed_Albatross/z.jpg")
    refused(r"1 image\(s\) are missing:\n  001\.Black_footed_Albatross/b\.jpg")
