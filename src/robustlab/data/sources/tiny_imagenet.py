"""Tiny-ImageNet-200: 200 classes of ImageNet at 64x64, in the layout of the unpacked archive."""

from __future__ import annotations

from collections.abc import Sequence

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.file_source import FileSource, check_manifest, image_files, need, read_lines, subfolders
from robustlab.data.storage.encoded_images import listing

_LAYOUT = (
    "unpack tiny-imagenet-200.zip (http://cs231n.stanford.edu/tiny-imagenet-200.zip): "
    "wnids.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt"
)


class TinyImageNet(FileSource):
    """100,000 training images; the 10,000 validation images are the test split, since test labels are not public.

    Labels number the classes in the order of `wnids.txt`.
    """

    def __init__(
        self,
        root: str,
        *,
        num_classes: int = 200,
        size: int = 64,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Check the arguments. `num_classes`: number of lines in `wnids.txt`; others are as in `FileSource`."""
        super().__init__(root, mean=mean, std=std, size=size, storage=storage, cache_dir=cache_dir)
        self.num_classes = num_classes

    def class_names(self) -> tuple[str, ...]:
        """Return the WordNet ids of `wnids.txt`."""
        wnids = read_lines(need(self.root / "wnids.txt", _LAYOUT))
        if len(wnids) != self.num_classes or len(set(wnids)) != len(wnids):
            raise DataError(
                f"{self.root / 'wnids.txt'} has {len(wnids)} lines, {len(set(wnids))} of them different, "
                f"for {self.num_classes} classes; unpack the archive again or set dataset.source.num_classes"
            )
        return tuple(wnids)

    def files(self, name: str) -> tuple[list[str], list[int]]:
        """Return files and labels of "train", by class, then by name; or of "test" (val), by name."""
        if name == "train":
            return self._train()
        if name == "test":
            return self._validation()
        raise ConfigError(f"tiny_imagenet has the splits train and test (its validation images), not {name!r}")

    def _train(self) -> tuple[list[str], list[int]]:
        wnids = self.class_names()
        folder = need(self.root / "train", _LAYOUT)
        different = sorted(set(wnids).symmetric_difference(subfolders(folder)))
        if different:
            raise DataError(listing(different, f"{folder}: {len(different)} class folder(s) differ from wnids.txt"))
        files: list[str] = []
        labels: list[int] = []
        for label, wnid in enumerate(wnids):
            members = image_files(need(folder / wnid / "images", _LAYOUT))
            files += [f"train/{wnid}/images/{file}" for file in members]
            labels += [label] * len(members)
        return files, labels

    def _validation(self) -> tuple[list[str], list[int]]:
        annotations = need(self.root / "val" / "val_annotations.txt", _LAYOUT)
        found = image_files(need(self.root / "val" / "images", _LAYOUT))
        label_of = {wnid: label for label, wnid in enumerate(self.class_names())}
        label_of_file: dict[str, int] = {}
        listed: list[str] = []
        for number, line in enumerate(read_lines(annotations), start=1):
            fields = line.split()  # file, wnid, and a box that is not needed here
            if len(fields) < 2 or fields[1] not in label_of:
                raise DataError(f"{annotations} line {number}: expected 'file wnid box' with a wnid of wnids.txt")
            listed.append(fields[0])
            label_of_file[fields[0]] = label_of[fields[1]]
        check_manifest(listed, found, where=str(annotations))
        unlabelled = sorted(set(found).difference(listed))
        if unlabelled:
            raise DataError(listing(unlabelled, f"{annotations}: {len(unlabelled)} image(s) have no label"))
        return [f"val/images/{file}" for file in found], [label_of_file[file] for file in found]
