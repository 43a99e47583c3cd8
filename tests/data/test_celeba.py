"""CelebA in the release's layout and in Kaggle's: the same groups from both, published counts, files that disagree."""

from pathlib import Path

import numpy as np
import pytest
import torch

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.celeba import CelebA
from tests.data.fixtures import picture, values, write_csv

NAMES = [f"Attribute_{number}" for number in range(40)]
NAMES[9], NAMES[20] = "Blond_Hair", "Male"
CELLS = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1), (0, 1, 1), (0, 0, 2), (1, 0, 2)]  # blond, male, partition
FILES = [f"{number:06d}.jpg" for number in range(1, 8)]


def signs(blond: int, male: int) -> list[str]:
    row = ["-1"] * 40
    row[9], row[20] = str(2 * blond - 1), str(2 * male - 1)
    return row


SIGNS = {(y, a): signs(y, a) for y in (0, 1) for a in (0, 1)}


def tables(root: Path, layout: str, files=FILES, cells=CELLS, listed=None) -> Path:
    """Write both files. listed: names in the partition file, if they are not those of the attribute file."""
    root.mkdir(parents=True, exist_ok=True)
    kaggle = layout == "kaggle"
    gap, other, suffix = (",", ",", "csv") if kaggle else ("  ", " ", "txt")
    bodies = {cell: gap.join(row) for cell, row in SIGNS.items()}
    rows = [f"{file}{gap}{bodies[y, a]}" for file, (y, a, _) in zip(files, cells, strict=True)]
    parts = [f"{file}{other}{part}" for file, (_, _, part) in zip(listed or files, cells, strict=True)]
    head = [",".join(("image_id", *NAMES))] if kaggle else [str(len(rows)), " ".join(NAMES) + " "]
    (root / f"list_attr_celeba.{suffix}").write_text("\n".join([*head, *rows, ""]))
    (root / f"list_eval_partition.{suffix}").write_text(
        "\n".join([*(["image_id,partition"] if kaggle else []), *parts, ""])
    )
    return root


def faces(root: Path, layout: str) -> Path:
    folder = root / "img_align_celeba" / ("img_align_celeba" if layout == "kaggle" else "")
    for value, file in enumerate(FILES):
        picture(folder / file, value, (4, 6))
    return tables(root, layout)


@pytest.mark.parametrize("layout", ["release", "kaggle"])
@pytest.mark.parametrize("storage", ["resident", "streaming"])
def test_both_layouts_give_the_same(tmp_path, layout, storage):
    source = CelebA(str(faces(tmp_path / "data", layout)), size=4, storage=storage, cache_dir=str(tmp_path / "cache"))
    assert source.task.group_names == ("dark-female", "dark-male", "blond-female", "blond-male")
    expected = {"train": ([0, 1, 2], [0, 1, 2]), "val": ([3, 4], [3, 1]), "test": ([5, 6], [0, 2])}
    for name, (pixels, groups) in expected.items():
        split = source.split(name)
        assert split.attributes is not None
        assert values(split.images) == pixels
        assert (split.labels * 2 + split.attributes).tolist() == groups
    assert source.split("test").names[-1].endswith("/000007.jpg")


def test_the_central_square_is_kept(tmp_path):
    from PIL import Image

    root = faces(tmp_path, "release")
    pixels = np.arange(24, dtype=np.uint8).reshape(6, 4)  # 4 wide, 6 high
    Image.fromarray(pixels).save(root / "img_align_celeba/000001.jpg", "PNG")
    images = CelebA(str(root), size=4).split("train").images
    assert isinstance(images, torch.Tensor)
    assert np.array_equal(images[0, 1].numpy(), pixels[1:5])


def test_any_two_attributes(tmp_path):
    root = faces(tmp_path, "release")
    names = {"class_names": ("female", "male"), "attribute_names": ("dark", "blond")}
    source = CelebA(str(root), target="Male", attribute="Blond_Hair", size=4, **names)
    assert source.expected == {}
    train = source.split("train")
    assert train.attributes is not None
    assert (train.labels.tolist(), train.attributes.tolist()) == ([0, 1, 0], [0, 0, 1])
    with pytest.raises(DataError, match="no column Moustache; it has image, Attribute_0"):
        CelebA(str(root), target="Moustache").split("train")


@pytest.mark.parametrize("layout", ["release", "kaggle"])
def test_published_counts(tmp_path, layout):
    """Files with the published groups, 202,599 rows, give the published table."""
    published = {
        "train": ((71629, 66874), (22880, 1387), 162770),
        "val": ((8535, 8276), (2874, 182), 19867),
        "test": ((9767, 7535), (2480, 180), 19962),
    }
    cells = [
        (y, a, part)
        for part, table in enumerate(published.values())
        for y in (0, 1)
        for a in (0, 1)
        for _ in range(table[y][a])
    ]
    files = [f"{number:06d}.jpg" for number in range(1, len(cells) + 1)]
    tables(tmp_path, layout, files, cells)
    (tmp_path / "img_align_celeba").mkdir()
    source = CelebA(str(tmp_path))
    rows = source.read_rows()
    for name, (dark, blond, total) in published.items():
        cell = torch.tensor(rows[name].labels) * 2 + torch.tensor(rows[name].attributes)
        counts = torch.bincount(cell, minlength=4).view(2, 2).tolist()
        assert (tuple(counts[0]), tuple(counts[1])) == (dark, blond) == source.expected[name]
        assert len(rows[name].files) == total
    assert rows["train"].files[0] == "img_align_celeba/000001.jpg"


@pytest.mark.parametrize("layout", ["release", "kaggle"])
def test_names_that_are_off_by_one(tmp_path, layout):
    root = faces(tmp_path, layout)
    from_zero = [f"{number:06d}.jpg" for number in range(7)]
    tables(root, layout, listed=from_zero)
    with pytest.raises(
        DataError, match=r"7 row\(s\) name different images, perhaps by one:\n  row 1: 000001.jpg and 0000"
    ):
        CelebA(str(root), size=4).split("train")
    tables(root, layout, files=from_zero)
    with pytest.raises(DataError, match=r"1 image\(s\) are missing:\n  img_align_celeba/.*000000\.jpg"):
        CelebA(str(root), size=4).split("train")
    tables(root, layout, files=FILES[:-1], cells=CELLS[:-1])
    with pytest.raises(DataError, match=r"1 image\(s\) have no row; .*\n  img_align_celeba/.*000007\.jpg"):
        CelebA(str(root), size=4).split("train")


def test_damaged_text_files(tmp_path):
    root = faces(tmp_path, "release")
    attributes, partition = root / "list_attr_celeba.txt", root / "list_eval_partition.txt"
    whole, parts = attributes.read_text(), partition.read_text()

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            CelebA(str(root), size=4).split("train")

    attributes.write_text(whole.replace("7\n", "9\n", 1))
    refused("line 1 announces 9 images, but 7 follow")
    attributes.write_text(whole.rstrip()[:-3])
    refused(r"1 line\(s\) do not have 41 fields:\n  line 9: 40 fields")
    attributes.write_text(whole.replace("  1  ", "  0  "))
    refused(r"Blond_Hair: 3 value\(s\) are not one of -1, 1")
    attributes.write_text("")
    refused("no column Blond_Hair, Male; it has image")
    attributes.write_text(whole)
    partition.write_text(parts.replace(" 2", " 3"))
    refused(r"list_eval_partition\.txt: 2 value\(s\) are not one of 0, 1, 2:\n  row 6: '3'")
    partition.write_text(parts.rpartition("000007")[0])
    refused("have 7 and 6 images; download both files again")


def test_missing_files(tmp_path):
    with pytest.raises(ConfigError, match="expected img_align_celeba"):
        CelebA(str(tmp_path / "nowhere")).split("train")
    root = tables(tmp_path, "kaggle")
    with pytest.raises(ConfigError, match="img_align_celeba does not exist"):
        CelebA(str(root)).split("train")
    (root / "list_eval_partition.csv").unlink()
    with pytest.raises(ConfigError, match=r"list_eval_partition\.csv does not exist"):
        CelebA(str(root)).split("train")
    write_csv(root / "list_attr_celeba.csv", ("image_id", "Male"), [("000001.jpg", 1)])
    (root / "list_eval_partition.csv").write_text("image_id,partition\n000001.jpg,0\n")
    with pytest.raises(DataError, match="no column Blond_Hair"):
        CelebA(str(root)).split("train")
