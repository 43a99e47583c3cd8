"""Read and write group tables, metadata with the class and attribute of every image; count and compare groups."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.storage.encoded_images import listing

COLUMNS = ("index", "file", "split", "y", "a", "g")
"""Columns of tables made by `write_table`; a and g are -1 without attributes, file is empty without files."""

Counts = tuple[tuple[int, ...], ...]
"""Number of images of each class (rows) with each attribute (columns)."""


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Return columns of a CSV file with a header, as text, ignoring a byte order mark and empty lines.

    Raises DataError for a missing column or field.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            header = [name.strip() for name in next(lines, [])]
            columns = pick(path, (line for line in lines if line), header, names, where="row", first=1)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error
    return dict(zip(names, columns, strict=True))


def pick(
    path: Path, rows: Iterable[Sequence[str]], header: Sequence[str], names: Sequence[str], *, where: str, first: int
) -> list[list[str]]:
    """Return the columns `names` of rows with the fields `header`, keeping only these in memory.

    - where, first: what a row is called in messages, and the number of the first one.

    Raises DataError for a missing column, or with a list of rows whose number of fields differs from the header's.
    """
    missing = [name for name in names if name not in header]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
    places = [header.index(name) for name in names]
    columns: list[list[str]] = [[] for _ in names]
    ragged: list[str] = []
    for number, row in enumerate(rows, start=first):
        if len(row) != len(header):
            ragged.append(f"{where} {number}: {len(row)} fields")
            continue
        for column, place in zip(columns, places, strict=True):
            column.append(row[place].strip())
    if ragged:
        raise DataError(listing(ragged, f"{path}: {len(ragged)} {where}(s) do not have {len(header)} fields"))
    return columns


def codes(values: Sequence[str], known: Mapping[str, int], *, where: str) -> list[int]:
    """Return the number that `known` assigns to each value.

    - where: file and column, for the message.

    Raises DataError that lists rows with any other value, counted from 1 without the header.
    """
    found = [known.get(value, -1) for value in values]
    if -1 in found:
        bad = [f"row {row}: {value!r}" for row, value in enumerate(values, start=1) if value not in known]
        raise DataError(listing(bad, f"{where}: {len(bad)} value(s) are not one of {', '.join(known)}"))
    return found


def count(split: Split, task: TaskSpec) -> Counts:
    """Return the number of images of each class (rows) with each attribute (columns; one without attributes)."""
    columns = max(task.num_attributes, 1)
    attributes = torch.zeros_like(split.labels) if split.attributes is None else split.attributes
    cells = torch.bincount(split.labels * columns + attributes, minlength=task.num_classes * columns)
    return tuple(tuple(row) for row in cells.view(task.num_classes, columns).tolist())


def show(counts: Counts, task: TaskSpec) -> str:
    """Format the counts as a table: one line per class, one column per attribute, and totals of both."""
    names = task.class_names or tuple(map(str, range(task.num_classes)))
    lines = [["class", *(task.attribute_names or ("images",))]]
    lines += [[name, *map(str, row)] for name, row in zip(names, counts, strict=True)]
    if task.num_attributes:
        sums = ["all", *(sum(row) for row in counts), sum(map(sum, counts))]
        lines = [[*line, str(total)] for line, total in zip(lines, sums, strict=False)]
        columns = [sum(column) for column in zip(*counts, strict=True)]
        lines.append(["all", *map(str, columns), str(sum(columns))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]))]) for line in lines)


def differences(counts: Counts, expected: Counts, task: TaskSpec) -> list[str]:
    """Return a line for each group whose count differs from the expected one."""
    flat = [[number for row in table for number in row] for table in (counts, expected)]
    return [
        f"{name} (g{group}) has {found} images, the published data set has {known}"
        for group, (name, found, known) in enumerate(zip(task.group_names, *flat, strict=True))
        if found != known
    ]


def write_table(path: Path, source: DataSource, splits: Iterable[str]) -> int:
    """Write the group table of `splits` as CSV with `COLUMNS`; return the number of rows.

    The column `index` is the image's stable index in its split, and g = y * num_attributes + a.

    Raises ConfigError, DataError.
    """
    rows: list[tuple[int, str, str, int, int, int]] = []
    columns = source.task.num_attributes
    for name in splits:
        split = source.split(name)
        labels = split.labels.tolist()
        attributes = [-1] * len(labels) if split.attributes is None else split.attributes.tolist()
        files = [""] * len(labels) if split.names is None else split.names
        for index, (file, y, a) in enumerate(zip(files, labels, attributes, strict=True)):
            rows.append((index, file, name, y, a, y * columns + a if a >= 0 else -1))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(rows)
    except OSError as error:
        raise ConfigError(f"cannot write the table {path} ({error.strerror or error}); choose another path") from error
    return len(rows)
