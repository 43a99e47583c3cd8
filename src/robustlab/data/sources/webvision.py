"""mini-WebVision: the first 50 classes of WebVision 1.0's Google subset, labelled by search query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.file_source import FileSource, check_manifest, image_files, need, read_lines, subfolders

_LAYOUT = (
    "expected WebVision 1.0 as unpacked: info/train_filelist_google.txt, info/val_filelist.txt, "
    "google/<query>/*.jpg, val_images_256/*.jpg"
)
_ILSVRC_CLASSES = 1000


class MiniWebVision(FileSource):
    """Google images of the first classes for training; splits "test" (WebVision validation) and "imagenet".

    The protocol of DivideMix (Li et al., ICLR 2020) and its successors. The labels come from web queries, so it is not
    known which are correct, and "clean_labels" is not provided. Samples keep the order of the file lists.
    """

    provides: frozenset[str] = frozenset()

    def __init__(
        self,
        root: str,
        *,
        imagenet_root: str | None = None,
        num_classes: int = 50,
        size: int = 299,
        storage: str = "streaming",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Check the arguments. Others are as in `FileSource`.

        - imagenet_root: folder of the ILSVRC12 validation images, for the extra split "imagenet", or None. It (or `val`
          in it) has one folder per class, named by number (0, 1, ...) or WordNet id, in the order of WebVision's
          info/synsets.txt.
        - num_classes: number of classes, taken from the start.
        """
        super().__init__(root, mean=mean, std=std, size=size, storage=storage, cache_dir=cache_dir)
        self.imagenet_root = None if imagenet_root is None else Path(imagenet_root).expanduser()
        self.num_classes = num_classes
        self.splits = ("train", "test", *(() if imagenet_root is None else ("imagenet",)))

    def class_names(self) -> tuple[str, ...]:
        """Return WordNet ids if info/synsets.txt exists, else the class numbers."""
        return self._wnids() or tuple(str(label) for label in range(self.num_classes))

    def files(self, name: str) -> tuple[list[str], list[int]]:
        """Return files and labels of "train", "test" or "imagenet"."""
        if name == "train":
            return self._listed("info/train_filelist_google.txt", "")
        if name == "test":
            return self._listed("info/val_filelist.txt", "val_images_256/")
        if name == "imagenet" and self.imagenet_root is not None:
            return self._imagenet(self.imagenet_root)
        known = "train, test and, where dataset.source.imagenet_root is set, imagenet"
        raise ConfigError(f"mini_webvision has the splits {known}; not {name!r}")

    def _listed(self, filelist: str, prefix: str) -> tuple[list[str], list[int]]:
        """Return the files and labels of the first classes in a file list with lines "file label"."""
        path = need(self.root / filelist, _LAYOUT)
        files: list[str] = []
        labels: list[int] = []
        for number, line in enumerate(read_lines(path), start=1):
            file, _, label = line.rpartition(" ")
            if not file or not label.isdecimal():
                raise DataError(f"{path} line {number}: expected 'file label', found {line[:80]!r}")
            if int(label) < self.num_classes:
                files.append(prefix + file.strip())
                labels.append(int(label))
        folders = sorted({file.rpartition("/")[0] for file in files})
        found = {
            f"{folder}/{file.name}"
            for folder in folders
            if (self.root / folder).is_dir()
            for file in (self.root / folder).iterdir()
        }
        if files and not found:
            raise ConfigError(f"{self.root} has none of the folders named in {filelist}; {_LAYOUT}")
        check_manifest(files, found, where=str(path))
        return files, labels

    def _imagenet(self, root: Path) -> tuple[list[str], list[int]]:
        """Return the ILSVRC12 validation images of the same classes, with absolute paths."""
        folder = need(root, "dataset.source.imagenet_root must name the ILSVRC12 validation images")
        folder = folder / "val" if (folder / "val").is_dir() else folder
        there = subfolders(folder)
        numbers = [str(label) for label in range(self.num_classes)]
        # WebVision numbers the 1,000 classes in the order of their sorted WordNet ids
        wnids = self._wnids() or (tuple(there[: self.num_classes]) if len(there) == _ILSVRC_CLASSES else ())
        for names in (numbers, wnids):
            if names and set(names) <= set(there):
                pairs = [
                    ((folder / name / file).resolve().as_posix(), label)
                    for label, name in enumerate(names)
                    for file in image_files(folder / name)
                ]
                return [file for file, _ in pairs], [label for _, label in pairs]
        raise ConfigError(
            f"{folder} needs one folder for each of the first {self.num_classes} classes, named 0, 1, ... or by "
            f"WordNet id (with info/synsets.txt in {self.root}, or with all {_ILSVRC_CLASSES} of them)"
        )

    def _wnids(self) -> tuple[str, ...]:
        """Return the first WordNet ids in info/synsets.txt; empty if there is no such file."""
        path = self.root / "info" / "synsets.txt"
        if not path.is_file():
            return ()
        wnids = tuple(line.split()[0] for line in read_lines(path)[: self.num_classes])
        if len(wnids) < self.num_classes:
            raise DataError(f"{path} has {len(wnids)} lines for {self.num_classes} classes")
        return wnids
