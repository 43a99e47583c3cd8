"""Base class of data sets with one file per image and known groups, and a data set described by a user's table."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import Split, TaskSpec
from robustlab.data.sources.file_source import FileSource, check_manifest, need
from robustlab.data.sources.group_tables import Counts, codes, read_columns
from robustlab.data.storage.encoded_images import SUFFIXES, listing

SPLITS = ("train", "val", "test")
_SPLIT_CODES = {name: number for number, part in enumerate(SPLITS) for name in (str(number), part)}


@dataclass(frozen=True)
class Rows:
    """The images of a split: files relative to the root, labels and attributes, one entry per image."""

    files: list[str]
    labels: list[int]
    attributes: list[int]


class GroupFiles(FileSource):
    """Base class of data sets with one file per image, where class and attribute of every image are known.

    A subclass returns the rows of each split; all splits are read and checked together, once.

    - attribute_names: names of the attribute's values.
    - expected: split -> counts of the published data set, if known.
    """

    splits: tuple[str, ...] = SPLITS
    attribute_names: tuple[str, ...] = ()
    expected: Mapping[str, Counts] = {}

    @abstractmethod
    def read_rows(self) -> Mapping[str, Rows]:
        """Return the rows of every split according to the metadata. Raises ConfigError, DataError."""

    def check_rows(self, rows: Mapping[str, Rows]) -> None:
        """Raise DataError unless rows and images match; not needed if the rows come from folders."""

    @cached_property
    def rows(self) -> Mapping[str, Rows]:
        """The rows of every split, read and checked on first access."""
        rows = self.read_rows()
        self.check_rows(rows)
        return rows

    @cached_property
    def task(self) -> TaskSpec:  # pyright: ignore[reportIncompatibleVariableOverride]  # read only when asked for
        """The task, with the names of the attribute's values; reads the same files as `FileSource.task`."""
        names = self.class_names()
        return TaskSpec(len(names), self._image_shape(), self.mean, self.std, names, self.attribute_names)

    def files(self, name: str) -> tuple[list[str], list[int]]:
        """Return files and labels of one of `splits`."""
        if name not in self.splits:
            raise ConfigError(f"this data set has the splits {', '.join(self.splits)}, not {name!r}")
        return self.rows[name].files, self.rows[name].labels

    def split(self, name: str) -> Split:
        """Return one of `splits` like `FileSource.split`, with attributes, (N,) int64."""
        plain, rows = super().split(name), self.rows[name]
        attributes = torch.tensor(rows.attributes, dtype=torch.int64)[self._undamaged(name, rows.files)]
        return replace(plain, attributes=attributes)


def by_split(
    files: Sequence[str], splits: Sequence[int], labels: Sequence[int], attributes: Sequence[int]
) -> dict[str, Rows]:
    """Return the rows of each split, in their order; splits: 0 train, 1 val, 2 test."""
    rows = {name: Rows([], [], []) for name in SPLITS}
    for file, part, label, attribute in zip(files, splits, labels, attributes, strict=True):
        row = rows[SPLITS[part]]
        row.files.append(file)
        row.labels.append(label)
        row.attributes.append(attribute)
    return rows


def images_below(folder: Path) -> set[str]:
    """Return the images below `folder`, relative to it, with "/", ignoring hidden and other files."""
    found: set[str] = set()
    for current, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(current).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found.update(
            prefix + name
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        )
    return found


def check_files(rows: Mapping[str, Rows], found: Collection[str], *, where: str) -> None:
    """Raise DataError unless a table lists every existing image exactly once, and no other; `where` names the table."""
    listed = [file for part in rows.values() for file in part.files]
    check_manifest(listed, found, where=where)
    extra = sorted(set(found).difference(listed))
    if extra:
        raise DataError(listing(extra, f"{where}: {len(extra)} image(s) have no row; remove them or add the rows"))


class GroupFolder(GroupFiles):
    """Any images with a CSV table of file, split, class and attribute, as written by `robustlab prepare-data`.

    Splits are 0, 1, 2 or train, val, test; classes and attributes are numbered from 0. Group numbers are recomputed
    from class and attribute, since other projects number groups differently.
    """

    def __init__(
        self,
        root: str,
        *,
        table: str = "metadata.csv",
        file_column: str = "file",
        split_column: str = "split",
        label_column: str = "y",
        attribute_column: str = "a",
        class_names: Sequence[str] = (),
        attribute_names: Sequence[str] = (),
        size: int | None = None,
        stretch: bool = False,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Check the arguments. Others are as in `FileSource`. Images without a row are ignored.

        - table: path, relative to the root or absolute; its file column is relative to the root.
        - class_names, attribute_names: in numerical order; empty for the numbers themselves, up to the largest.
        """
        super().__init__(root, mean=mean, std=std, size=size, stretch=stretch, storage=storage, cache_dir=cache_dir)
        self.table = self.root / Path(table).expanduser()
        self.columns = (file_column, split_column, label_column, attribute_column)
        self._names = (tuple(class_names), tuple(attribute_names))

    @cached_property
    def attribute_names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]  # as `task`
        """The given names, or else the numbers that occur."""
        return self._names[1] or _numbers(row.attributes for row in self.rows.values())

    def class_names(self) -> tuple[str, ...]:
        """Return the given names, or else the numbers that occur."""
        return self._names[0] or _numbers(row.labels for row in self.rows.values())

    def read_rows(self) -> dict[str, Rows]:
        """Return the rows of every split, in the order of the table."""
        path = need(self.table, f"expected a CSV file with the columns {', '.join(self.columns)}")
        table = read_columns(path, self.columns)
        file, split, label, attribute = (table[name] for name in self.columns)
        known = [{str(number): number for number in range(len(names) or len(file))} for names in self._names]
        return by_split(
            file,
            codes(split, _SPLIT_CODES, where=f"{path}, column {self.columns[1]}"),
            codes(label, known[0], where=f"{path}, column {self.columns[2]}"),
            codes(attribute, known[1], where=f"{path}, column {self.columns[3]}"),
        )

    def check_rows(self, rows: Mapping[str, Rows]) -> None:
        """Raise DataError for an image that is missing or has two rows."""
        listed = [file for part in rows.values() for file in part.files]
        check_manifest(listed, images_below(self.root), where=str(self.table))


def _numbers(values: Iterable[list[int]]) -> tuple[str, ...]:
    return tuple(str(number) for number in range(max((max(part, default=-1) for part in values), default=-1) + 1))
