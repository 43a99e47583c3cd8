"""Folders of images, one folder per class: the layout of torchvision's `ImageFolder`."""

from __future__ import annotations

from collections.abc import Sequence

from robustlab.data.files import FileSource, image_files, need, subfolders
from robustlab.data.images import listing
from robustlab.errors import ConfigError, DataError

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEST_FOLDERS = ("test", "val", "valid", "validation")


class ImageFolder(FileSource):
    """`train/<class>/*` and `test/<class>/*` (or val, valid, validation), images at any depth below their class.

    Labels number the class folders of `train` sorted by code point ("10" before "2"), and samples are ordered by
    class, then by path: neither depends on the file system or the locale.
    """

    def __init__(
        self,
        root: str,
        *,
        train_folder: str = "train",
        test_folder: str | None = None,
        size: int | None = None,
        channels: int = 3,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = _IMAGENET_MEAN,
        std: Sequence[float] = _IMAGENET_STD,
    ) -> None:
        """test_folder: None takes the first of test, val, valid, validation that exists. Others as `FileSource`."""
        super().__init__(root, mean=mean, std=std, size=size, channels=channels, storage=storage, cache_dir=cache_dir)
        self.train_folder, self.test_folder = train_folder, test_folder

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the folders in the training folder, sorted."""
        layout = f"expected {self.train_folder}/<class>/<images> in {self.root}"
        names = subfolders(need(self.root / self.train_folder, layout))
        if not names:
            raise ConfigError(f"{self.root / self.train_folder} has no class folders; {layout}")
        return tuple(names)

    def files(self, name: str) -> tuple[list[str], list[int]]:
        """Return files and labels of "train" or "test". Raises DataError if they do not have the same classes."""
        if name not in ("train", "test"):
            raise ConfigError(f"an image folder has the splits train and test, not {name!r}")
        part = self.train_folder if name == "train" else self._test_folder()
        classes = self.class_names()
        there = set(subfolders(self.root / part))
        differences = [f"{entry} is missing" for entry in sorted(set(classes) - there)]
        differences += [f"{entry} is not a class of {self.train_folder}" for entry in sorted(there - set(classes))]
        if differences:
            raise DataError(listing(differences, f"{self.root / part}: {len(differences)} class folder(s) differ"))
        files: list[str] = []
        labels: list[int] = []
        for label, folder in enumerate(classes):
            members = image_files(self.root / part / folder)
            files += [f"{part}/{folder}/{file}" for file in members]
            labels += [label] * len(members)
        return files, labels

    def _test_folder(self) -> str:
        choices = _TEST_FOLDERS if self.test_folder is None else (self.test_folder,)
        for folder in choices:
            if (self.root / folder).is_dir():
                return folder
        raise ConfigError(
            f"{self.root} has no test folder ({', '.join(choices)}); "
            "put <class>/<images> there or set dataset.source.test_folder"
        )
