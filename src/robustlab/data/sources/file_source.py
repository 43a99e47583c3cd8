"""Base class of data sets with one file per image: list files, and decode them once into the cache or lazily."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from robustlab.core.console import warn
from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import DataSource, Split, TaskSpec, check_labels
from robustlab.data.storage.cache import cached_array, fingerprint
from robustlab.data.storage.damage import damaged_files
from robustlab.data.storage.encoded_images import (
    SUFFIXES,
    EncodedImages,
    check_source,
    decode_image,
    image_blocks,
    listing,
)
from robustlab.data.storage.staging import Stage

_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})  # left behind by file browsers, like all hidden files


class FileImages(EncodedImages):
    """Images in files, decoded on demand; a `LazyImages`."""

    def __init__(self, root: Path, files: Sequence[str], channels: int) -> None:
        """Decode `files`, relative to `root`, to `channels`."""
        super().__init__(channels)
        self.root, self.files = root, files

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def encoded(self, index: int) -> tuple[str, Path]:
        """Return the file's path relative to the root, and its full path."""
        return self.files[index], self.root / self.files[index]

    def staged(self, stage: Stage) -> FileImages:
        """Return the same images, read from copies on this node."""
        return FileImages(stage.files(self.root, self.files), self.files, self.channels)


class FileSource(DataSource):
    """Base class of data sets with one file per image; a subclass returns the files and labels of each split.

    Resident images are decoded once into `cache_dir` and memory-mapped from there; a change in a file's name, size or
    modification time, or in `size` or `channels`, makes a new cache. All damaged files are reported together, or
    skipped with `on_error` = "skip", which decodes every image once to find them, even for streaming.
    """

    can_skip = True

    def __init__(
        self,
        root: str,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | None,
        stretch: bool = False,
        channels: int = 3,
        storage: str = "resident",
        cache_dir: str | None = None,
    ) -> None:
        """Check the arguments.

        - root: folder of the data set.
        - mean, std: per channel, for pixels in [0, 1].
        - size: side of the training images. Resident: images are cropped to the central square and resized to it; None
          uses the first image's shape, which all others must share. Streaming: size of the workers' crops.
        - stretch: resize without cropping.
        - storage: "resident" or "streaming".
        - cache_dir: None decodes into memory every time.
        """
        self.root = Path(root).expanduser()
        self.mean, self.std, self.channels = tuple(mean), tuple(std), channels
        self.size, self.stretch, self.storage = size, stretch, storage
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self._skipped: dict[str, dict[str, str]] = {}
        check_source(channels=channels, size=size, storage=storage, mean=self.mean, std=self.std)

    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Return the class names in label order. Raises ConfigError, DataError."""

    @abstractmethod
    def files(self, name: str) -> tuple[list[str], list[int]]:
        """Return the files of split `name`, relative to the root, and their labels. Raises ConfigError, DataError."""

    @cached_property
    def task(self) -> TaskSpec:  # pyright: ignore[reportIncompatibleVariableOverride]  # read only when asked for
        """The task; reads class names and, without a `size`, the first training image."""
        names = self.class_names()
        return TaskSpec(len(names), self._image_shape(), self.mean, self.std, names)

    def split(self, name: str) -> Split:
        """Return a split: (N, C, H, W) uint8, memory-mapped if there is a cache folder, or `FileImages`."""
        files, classes = self.files(name)
        what = f"{self.root} ({name})"
        if not files:
            raise DataError(f"{what}: no image found")
        rows = self._undamaged(name, files)
        files, classes = [files[row] for row in rows], [classes[row] for row in rows]
        labels = torch.tensor(classes, dtype=torch.int64)
        check_labels(labels, self.task.num_classes, where=what, names=self.task.class_names)
        streaming = self.storage == "streaming"
        images = FileImages(self.root, files, self.channels) if streaming else self._resident(name, files, what)
        return Split(images, labels, names=tuple(files))

    @property
    def skipped(self) -> Mapping[str, Mapping[str, str]]:
        """The skipped damaged images: split read so far -> file -> reason."""
        return self._skipped

    def _undamaged(self, name: str, files: Sequence[str]) -> list[int]:
        """Return the positions in `files` to keep: all, or with `on_error` = "skip" those that decode."""
        if self.on_error != "skip":
            return list(range(len(files)))
        record = None
        if self.cache_dir is not None:
            key = fingerprint(self.root, files, name, self.channels)
            record = self.cache_dir / type(self).__name__.lower() / f"{name}-{key}.damaged.json"
        bad = damaged_files(self.root, files, channels=self.channels, record=record)
        if bad:
            self._skipped[name] = bad
        return [row for row, file in enumerate(files) if file not in bad]

    def _resident(self, name: str, files: list[str], what: str) -> Tensor:
        """Return all images of a split as one tensor."""
        shape = self.task.image_shape
        path = None
        if self.cache_dir is not None:
            stretch = ("stretch",) if self.stretch else ()
            key = fingerprint(self.root, files, name, shape, self.size, *stretch)
            path = self.cache_dir / type(self).__name__.lower() / f"{name}-{key}.npy"
        items = ((file, self.root / file) for file in files)
        fix = "replace or remove them, or skip them with dataset.on_error=skip"
        array = cached_array(
            path,
            (len(files), *shape),
            "uint8",
            lambda: image_blocks(items, shape, size=self.size, what=what, stretch=self.stretch, fix=fix),
        )
        return torch.from_numpy(array)

    def _image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W) from `size`, or from the first training image that decodes."""
        if self.size is not None:
            return self.channels, self.size, self.size
        problems: list[str] = []
        for file in self.files("train")[0]:
            try:
                height, width, _ = decode_image(file, self.root / file, channels=self.channels).shape
            except DataError as error:  # `split` will report it together with all others
                problems.append(str(error))
                continue
            return self.channels, height, width
        raise DataError(
            listing(problems, f"{self.root} (train): no image decodes")
            if problems
            else f"{self.root} (train): no image found"
        )


def need(path: Path, layout: str) -> Path:
    """Return `path`. Raises ConfigError that describes the expected layout if it does not exist."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist; {layout}; dataset.source.root or ROBUSTLAB_DATA names the folder")
    return path


def read_lines(path: Path) -> list[str]:
    """Return the non-blank lines of a text file. Raises DataError if it is not text."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error.reason} at byte {error.start})") from error


def subfolders(folder: Path) -> list[str]:
    """Return the names of the non-hidden folders in `folder`, sorted by code point."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def image_files(folder: Path) -> list[str]:
    """Return the images below `folder` (relative, with "/"), sorted by code point.

    Hidden files are ignored, and so are, with a warning, files without an image suffix.
    """
    images: list[str] = []
    others: list[str] = []
    for current, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or name.lower() in _CLUTTER:
                continue
            file = Path(current, name)
            (images if file.suffix.lower() in SUFFIXES else others).append(file.relative_to(folder).as_posix())
    if others:
        _warn_of_others(folder, sorted(others))
    return sorted(images)


_TOLD: set[Path] = set()
_MOST_TOLD = 5  # a data set may have thousands of folders


def _warn_of_others(folder: Path, others: Sequence[str]) -> None:
    if folder in _TOLD or len(_TOLD) > _MOST_TOLD:
        return
    _TOLD.add(folder)
    if len(_TOLD) > _MOST_TOLD:
        warn("more folders contain files without an image suffix, which are ignored")
        return
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    warn(f"{folder / others[0]}{more}: no image suffix, ignored")


def check_manifest(expected: Sequence[str], found: Collection[str], *, where: str) -> None:
    """Raise DataError that names files listed twice, or listed but missing."""
    seen: set[str] = set()
    twice = [name for name in expected if name in seen or seen.add(name)]
    if twice:
        raise DataError(listing(twice, f"{where}: {len(twice)} image(s) are listed twice"))
    missing = sorted(seen.difference(found))
    if missing:
        raise DataError(listing(missing, f"{where}: {len(missing)} image(s) are missing"))
