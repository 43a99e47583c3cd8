"""MetaShift cats and dogs, indoors and outdoors, as in SubpopBench (Yang et al., ICML 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robustlab.core.errors import DataError
from robustlab.data.sources.file_source import image_files, need
from robustlab.data.sources.group_files import GroupFiles, Rows, by_split
from robustlab.data.storage.encoded_images import listing

_CELLS = {  # in the order in which SubpopBench pools them: (class, attribute)
    "train/cat/cat(indoor)": (1, 1),
    "train/dog/dog(outdoor)": (0, 0),
    "test/cat/cat(outdoor)": (1, 0),
    "test/dog/dog(indoor)": (0, 1),
}
_LAYOUT = f"expected MetaShift-Cat-Dog-indoor-outdoor as unpacked: {', '.join(_CELLS)}"
_SEED = 42  # a constant of the data set


class MetaShift(GroupFiles):
    """Dogs (0) and cats (1), outdoors (0) or indoors (1).

    The four folders are pooled; NumPy's `RandomState(42)` draws 25 % for test and 10 % for validation. The split
    depends on the order of the files, which SubpopBench leaves to the file system; here they are sorted by name within
    each folder. `robustlab prepare-data metashift --table` records the split.
    """

    attribute_names = ("outdoor", "indoor")

    def __init__(
        self,
        root: str,
        *,
        test_share: float = 0.25,
        val_share: float = 0.1,
        size: int | None = 256,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Check the arguments. Others are as in `FileSource`.

        - test_share, val_share: shares of all images, drawn in this order.
        """
        super().__init__(root, mean=mean, std=std, size=size, storage=storage, cache_dir=cache_dir)
        self.test_share, self.val_share = test_share, val_share

    def class_names(self) -> tuple[str, ...]:
        """Return the names of classes 0 and 1."""
        return ("dog", "cat")

    def read_rows(self) -> dict[str, Rows]:
        """Return the rows of every split: by folder, then by name."""
        files: list[str] = []
        cells: list[tuple[int, int]] = []
        for folder, cell in _CELLS.items():
            members = image_files(need(self.root / folder, _LAYOUT))
            files += [f"{folder}/{file}" for file in members]
            cells += [cell] * len(members)
        empty = [folder for folder, cell in _CELLS.items() if cell not in cells]
        if empty:
            raise DataError(listing(empty, f"{self.root}: {len(empty)} folder(s) without an image"))
        generator = np.random.RandomState(_SEED)
        everything = np.arange(len(files))
        splits = np.zeros(len(files), dtype=np.int64)
        test = generator.choice(everything, size=int(len(files) * self.test_share), replace=False)
        rest = np.setdiff1d(everything, test)
        splits[generator.choice(rest, size=int(len(files) * self.val_share), replace=False)] = 1
        splits[test] = 2
        return by_split(files, splits.tolist(), [y for y, _ in cells], [a for _, a in cells])
