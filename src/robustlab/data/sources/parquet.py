"""Read image data sets from Parquet in the Hugging Face Hub's layout: encoded images and labels as columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import DataSource, Split, TaskSpec, check_labels
from robustlab.data.storage.blob import BlobImages, packed
from robustlab.data.storage.cache import cached_array, fingerprint
from robustlab.data.storage.encoded_images import check_source, decode_image, image_blocks, listing

_IMAGE_COLUMNS = ("img", "image", "images")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(.*)\.parquet")
_ROWS = 1024  # rows read at once


class Parquet(DataSource):
    """Images in Parquet shards: an image column (`struct<bytes, path>` or plain bytes) and an integer label column.

    Samples are ordered by shard name, then by row. Resident images are decoded once into `cache_dir`; for streaming,
    the encoded images are copied there, so that each can be read individually. Both are rebuilt when a shard's name,
    size or modification time changes.
    """

    def __init__(
        self,
        root: str,
        *,
        train: str = "**/train-*.parquet",
        test: str = "**/test-*.parquet",
        val: str | None = "**/validation-*.parquet",
        image_column: str | None = None,
        label_column: str | None = None,
        num_classes: int | None = None,
        size: int | None = None,
        channels: int = 3,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Check the arguments.

        - train, test, val: globs below `root`; there is a split "val" if a file matches.
        - image_column, label_column: None for the Hub's usual names.
        - num_classes: None for the number of class names in the schema, or else the largest training label + 1.
        - size: side of the training images (resident: cropped to a square and resized; streaming: size of the workers'
          crops); None for the first image's shape.
        - storage: "resident" or "streaming".
        - mean, std: per channel, for pixels in [0, 1].
        """
        self.root = Path(root).expanduser()
        self.patterns = {"train": train, **({} if val is None else {"val": val}), "test": test}
        self.columns = (image_column, label_column)
        self.num_classes, self.size, self.channels, self.storage = num_classes, size, channels, storage
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.mean, self.std = tuple(mean), tuple(std)
        check_source(channels=channels, size=size, storage=storage, mean=self.mean, std=self.std)
        if storage == "streaming" and cache_dir is None:
            raise ConfigError("streaming from Parquet needs a cache folder; set paths.cache_dir")

    @cached_property
    def task(self) -> TaskSpec:  # pyright: ignore[reportIncompatibleVariableOverride]  # read only when asked for
        """The task; reads the schema, possibly the training labels, and without a `size` the first image."""
        shards = self._shards("train")
        names = _class_names(shards[0], self._label_column(shards[0]))
        count = self.num_classes or len(names) or int(self._labels(shards).max()) + 1
        shape = (self.channels, self.size, self.size) if self.size is not None else self._first_shape(shards)
        return TaskSpec(count, shape, self.mean, self.std, names if len(names) == count else ())

    @cached_property
    def splits(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]  # read only when asked
        """The names "train", "val" if it has a shard, and "test"."""
        return tuple(name for name in self.patterns if name != "val" or self._files(name))

    def split(self, name: str) -> Split:
        """Return one of `splits`, with images as (N, C, H, W) uint8, memory-mapped from the cache, or `BlobImages`."""
        shards = self._shards(name)
        labels = self._labels(shards)
        what = f"{self.root} ({name})"
        check_labels(
            labels,
            self.task.num_classes,
            where=f"{what}, column {self._label_column(shards[0])!r}",
            key="dataset.source.num_classes",
        )
        column = self._image_column(shards[0])
        names = [shard.relative_to(self.root).as_posix() for shard in shards]
        settings = (column,) if self.storage == "streaming" else (column, self.task.image_shape, self.size)
        stem = f"{name}-{fingerprint(self.root, names, name, *settings)}"
        folder = None if self.cache_dir is None else self.cache_dir / "parquet"
        if self.storage == "streaming" and folder is not None:
            blob = packed(folder / f"{stem}.blob", len(labels), lambda: self._rows(shards, column))
            lengths = [pq.read_metadata(shard).num_rows for shard in shards]
            return Split(BlobImages(blob, list(zip(names, lengths, strict=True)), self.channels), labels)
        shape = self.task.image_shape
        array = cached_array(
            None if folder is None else folder / f"{stem}.npy",
            (len(labels), *shape),
            "uint8",
            lambda: image_blocks(self._rows(shards, column), shape, size=self.size, what=what),
        )
        return Split(torch.from_numpy(array), labels)

    def _shards(self, name: str) -> list[Path]:
        """Return the shards of a split, sorted by name. Raises ConfigError if there are none or some are missing."""
        if name not in self.splits:
            raise ConfigError(f"{self.root} has the splits {', '.join(self.splits)}, not {name!r}")
        pattern, shards = self.patterns[name], self._files(name)
        if not shards:
            others = sorted(path.relative_to(self.root).as_posix() for path in self.root.glob("**/*.parquet"))
            there = f"it has {', '.join(others[:5])}" if others else "it has no .parquet file"
            raise ConfigError(
                f"no file matches {pattern} in {self.root} ({there}); put the {name} shards there as on the Hub, "
                f"e.g. {name}-00000-of-00001.parquet, or set dataset.source.root or dataset.source.{name}"
            )
        missing = _missing_shards(shards)
        if missing:
            raise ConfigError(listing(missing, f"{self.root} ({name}): {len(missing)} shard(s) are missing"))
        return shards

    def _files(self, name: str) -> list[Path]:
        found = (path for path in self.root.glob(self.patterns[name]) if path.is_file())
        return sorted(found, key=lambda path: path.as_posix())

    def _image_column(self, shard: Path) -> str:
        return _find_column(shard, self.columns[0], _IMAGE_COLUMNS, "image")

    def _label_column(self, shard: Path) -> str:
        return _find_column(shard, self.columns[1], _LABEL_COLUMNS, "label")

    def _labels(self, shards: list[Path]) -> Tensor:
        """Return all labels, (N,) int64."""
        column = self._label_column(shards[0])
        parts: list[Tensor] = []
        for shard in shards:
            values = _read(shard, column)
            if not pa.types.is_integer(values.type):
                raise ConfigError(
                    f"{shard}: column {column!r} contains {values.type}, not integer labels; "
                    "set dataset.source.label_column"
                )
            if values.null_count:
                row = values.is_null().to_pylist().index(True)
                raise DataError(f"{shard} row {row}: no label ({values.null_count} rows have none)")
            parts.append(torch.from_numpy(values.to_numpy().astype("int64")))
        labels = torch.cat(parts)
        if not len(labels):
            raise DataError(f"{self.root}: {', '.join(shard.name for shard in shards)} have no rows")
        return labels

    def _rows(self, shards: list[Path], column: str) -> Iterator[tuple[str, bytes | None]]:
        """Yield (file and row, encoded bytes) of every sample."""
        for shard in shards:
            name = shard.relative_to(self.root).as_posix()
            row = 0
            for values in _batches(shard, column):
                for value in values.to_pylist():
                    yield f"{name} row {row}", value.get("bytes") if isinstance(value, dict) else value
                    row += 1

    def _first_shape(self, shards: list[Path]) -> tuple[int, int, int]:
        """Return (C, H, W) of the first image that decodes."""
        problems: list[str] = []
        for where, source in self._rows(shards, self._image_column(shards[0])):
            try:
                height, width, _ = decode_image(where, source, channels=self.channels).shape
            except DataError as error:  # `split` will report it together with all others
                problems.append(str(error))
                continue
            return self.channels, height, width
        raise DataError(listing(problems, f"{self.root} (train): no image decodes"))


def _missing_shards(shards: list[Path]) -> list[str]:
    """Return the names of missing shards, which the others' "-00001-of-00004" implies."""
    missing: list[str] = []
    for found in [match for match in (_SHARD.fullmatch(path.name) for path in shards) if match]:
        stem, number, total, tail = found.groups()
        wanted = {f"{stem}-{index:0{len(number)}d}-of-{total}{tail}.parquet" for index in range(int(total))}
        missing += wanted.difference(path.name for path in shards)
    return sorted(set(missing))


def _find_column(shard: Path, given: str | None, usual: tuple[str, ...], what: str) -> str:
    """Return the column to read: the given one, or else the first usual name in the file."""
    names = _schema(shard).names
    for choice in (given,) if given is not None else usual:
        if choice in names:
            return choice
    asked = repr(given) if given is not None else " or ".join(usual)
    raise ConfigError(f"{shard}: no column {asked}; it has {', '.join(names)}; set dataset.source.{what}_column")


def _schema(shard: Path) -> Any:  # a pyarrow.Schema: pyarrow ships no types
    try:
        return pq.read_schema(shard)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard, error) from error


def _read(shard: Path, column: str) -> Any:  # a pyarrow.ChunkedArray
    try:
        return pq.read_table(shard, columns=[column]).column(column)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _damaged(shard, error) from error


def _batches(shard: Path, column: str) -> Iterator[Any]:
    """Yield the column in pieces of at most `_ROWS` rows."""
    try:
        for batch in pq.ParquetFile(shard).iter_batches(batch_size=_ROWS, columns=[column]):
            yield batch.column(0)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard, error) from error


def _damaged(shard: Path, error: Exception) -> DataError:
    return DataError(f"{shard}: not a readable Parquet file ({error}); download it again")


def _class_names(shard: Path, column: str) -> tuple[str, ...]:
    """Return the class names that the Hub stores in the schema's metadata; empty if there are none."""
    metadata = _schema(shard).metadata or {}
    try:
        feature = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"][column]
        return tuple(str(name) for name in feature["names"])
    except (ValueError, LookupError, TypeError):  # not written by the Hub's library, or not a ClassLabel
        return ()
