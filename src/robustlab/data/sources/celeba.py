"""CelebA with one binary attribute as class and another one as spurious attribute, by default blond hair and gender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from robustlab.core.errors import DataError
from robustlab.data.sources.file_source import need, read_lines
from robustlab.data.sources.group_files import GroupFiles, Rows, by_split, check_files, images_below
from robustlab.data.sources.group_tables import Counts, codes, pick, read_columns
from robustlab.data.storage.encoded_images import listing

_LAYOUT = (
    "expected img_align_celeba/*.jpg with list_attr_celeba.txt and list_eval_partition.txt (the release), "
    "or with list_attr_celeba.csv and list_eval_partition.csv (Kaggle)"
)


class CelebA(GroupFiles):
    """Faces (Liu et al., ICCV 2015): class Blond_Hair, attribute Male, both 0 or 1; official splits.

    Reads the release's text files or Kaggle's CSV files. The two files must list the same images in the same order, and
    every image must exist: image 1 is 000001.jpg, so a table that counts from 000000.jpg is refused.
    """

    _published: Mapping[str, Counts] = {
        "train": ((71629, 66874), (22880, 1387)),
        "val": ((8535, 8276), (2874, 182)),
        "test": ((9767, 7535), (2480, 180)),
    }

    def __init__(
        self,
        root: str,
        *,
        target: str = "Blond_Hair",
        attribute: str = "Male",
        class_names: Sequence[str] = ("dark", "blond"),
        attribute_names: Sequence[str] = ("female", "male"),
        size: int | None = 178,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Choose class and attribute. Other arguments are as in `FileSource`.

        - target, attribute: two of the 40 attribute names.
        - class_names, attribute_names: names of their values -1 and 1.
        - size: 178 keeps the central square of the 178x218 images unchanged.
        """
        super().__init__(root, mean=mean, std=std, size=size, storage=storage, cache_dir=cache_dir)
        self.target, self.attribute = target, attribute
        self._class_names, self.attribute_names = tuple(class_names), tuple(attribute_names)
        self.expected = self._published if (target, attribute) == ("Blond_Hair", "Male") else {}

    def class_names(self) -> tuple[str, ...]:
        """Return the names of classes 0 and 1."""
        return self._class_names

    def read_rows(self) -> dict[str, Rows]:
        """Return the rows of every split, in the order of the attribute file."""
        need(self.root, _LAYOUT)
        kaggle = (self.root / "list_attr_celeba.csv").is_file() and not (self.root / "list_attr_celeba.txt").is_file()
        suffix = "csv" if kaggle else "txt"
        attributes, partition = (
            need(self.root / f"{stem}.{suffix}", _LAYOUT) for stem in ("list_attr_celeba", "list_eval_partition")
        )
        read = _read_kaggle if kaggle else _read_release
        names, target, attribute, listed, splits = read(attributes, partition, self.target, self.attribute)
        _check_aligned(names, listed, f"{attributes} and {partition.name}")
        folder = self._folder()
        signs = {"-1": 0, "1": 1}
        return by_split(
            [f"{folder}/{name}" for name in names],
            codes(splits, {"0": 0, "1": 1, "2": 2}, where=str(partition)),
            codes(target, signs, where=f"{attributes}, {self.target}"),
            codes(attribute, signs, where=f"{attributes}, {self.attribute}"),
        )

    def check_rows(self, rows: Mapping[str, Rows]) -> None:
        """Raise DataError for an image that is missing, or has no row or more than one."""
        folder = self._folder()
        found = {f"{folder}/{name}" for name in images_below(self.root / folder)}
        check_files(rows, found, where=f"{self.root / 'list_attr_celeba'}")

    def _folder(self) -> str:
        """Return the folder of the images, relative to the root; Kaggle's archive nests it twice."""
        name = "img_align_celeba"
        inner = need(self.root / name, _LAYOUT) / name
        return f"{name}/{name}" if inner.is_dir() else name


def _read_kaggle(attributes: Path, partition: Path, target: str, attribute: str) -> tuple[list[str], ...]:
    """Return names, target, attribute; names, partition of the CSV files."""
    table = read_columns(attributes, ("image_id", target, attribute))
    parts = read_columns(partition, ("image_id", "partition"))
    return table["image_id"], table[target], table[attribute], parts["image_id"], parts["partition"]


def _read_release(attributes: Path, partition: Path, target: str, attribute: str) -> tuple[list[str], ...]:
    """Return names, target, attribute; names, partition of the text files."""
    lines = read_lines(attributes)
    header = ["image", *(lines[1].split() if len(lines) > 1 else ())]  # line 2 names the attributes only
    rows = (line.split() for line in lines[2:])
    names, classes, values = pick(attributes, rows, header, ("image", target, attribute), where="line", first=3)
    if lines[0] != str(len(names)):
        raise DataError(
            f"{attributes}: line 1 announces {lines[0]} images, but {len(names)} follow; download the file again"
        )
    rows = (line.split() for line in read_lines(partition))
    listed, parts = pick(partition, rows, ("image", "part"), ("image", "part"), where="line", first=1)
    return names, classes, values, listed, parts


def _check_aligned(names: list[str], listed: list[str], where: str) -> None:
    """Raise DataError unless both files list the same images in the same order."""
    if len(names) != len(listed):
        raise DataError(f"{where} have {len(names)} and {len(listed)} images; download both files again")
    different = [
        f"row {row}: {one} and {other}"
        for row, (one, other) in enumerate(zip(names, listed, strict=True), start=1)
        if one != other
    ]
    if different:
        raise DataError(listing(different, f"{where}: {len(different)} row(s) name different images, perhaps by one"))
