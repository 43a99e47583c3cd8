"""Read images from one folder per class, the layout of torchvision's `ImageFolder`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.file_source import FileSource, image_files, need, subfolders
from robustlab.data.storage.encoded_images import listing

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VAL_FOLDERS = ("val", "valid", "validation")
_TEST_FOLDERS = ("test", *_VAL_FOLDERS)


class ImageFolder(FileSource):
    """`train/<class>/*` and `test/<class>/*` (or val, valid, validation), images at any depth below their class.

    Labels number the class folders of `train` sorted by code point ("10" before "2"), and samples are ordered by class,
    then by path, independent of file system and locale. If there are both a test folder and one of the other three, the
    latter is the split "val".
    """

    def __init__(
        self,
        root: str,
        *,
        train_folder: str = "train",
        test_folder: str | None = None,
        val_folder: str | None = "auto",
        size: int | None = None,
        channels: int = 3,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = _IMAGENET_MEAN,
        std: Sequence[float] = _IMAGENET_STD,
    ) -> None:
        """Check the arguments. Others are as in `FileSource`.

        - test_folder: None for the first of test, val, valid, validation that exists.
        - val_folder: folder of the split "val"; "auto" for the first of val, valid, validation that exists in addition
          to the test folder, None for no such split.
        """
        super().__init__(root, mean=mean, std=std, size=size, channels=channels, storage=storage, cache_dir=cache_dir)
        self.train_folder, self.test_folder, self.val_folder = train_folder, test_folder, val_folder

    @cached_property
    def splits(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]  # read only when asked
        """The names "train", "val" if there is a separate folder, and "test"; checks which folders exist."""
        return ("train", "test") if self._val_folder() is None else ("train", "val", "test")

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the folders in the training folder, sorted."""
        layout = f"expected {self.train_folder}/<class>/<images> in {self.root}"
        names = subfolders(need(self.root / self.train_folder, layout))
        if not names:
            raise ConfigError(f"{self.root / self.train_folder} has no class folders; {layout}")
        return tuple(names)

    def files(self, name: str) -> tuple[list[str], list[int]]:
        """Return files and labels of one of `splits`. Raises DataError if its classes differ from train's."""
        if name not in self.splits:
            raise ConfigError(f"{self.root} has the splits {', '.join(self.splits)}, not {name!r}")
        part = {"train": self.train_folder, "val": self._val_folder()}.get(name) or self._test_folder()
        classes = self.class_names()
        there = set(subfolders(need(self.root / part, f"expected the {name} split there")))
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

    def _val_folder(self) -> str | None:
        if self.val_folder != "auto":
            return self.val_folder
        test = self.test_folder or _TEST_FOLDERS[0]
        there = (folder for folder in _VAL_FOLDERS if (self.root / folder).is_dir() and (self.root / test).is_dir())
        return next((folder for folder in there if folder not in (self.train_folder, test)), None)
