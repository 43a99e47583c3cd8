"""Waterbirds: birds of CUB-200 pasted onto land or water backgrounds of Places (Sagawa et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustlab.data.sources.file_source import need
from robustlab.data.sources.group_files import GroupFiles, Rows, by_split, check_files, images_below
from robustlab.data.sources.group_tables import Counts, codes, read_columns

_LAYOUT = (
    "expected waterbird_complete95_forest2water2 as unpacked: metadata.csv and a folder of images for each species"
)


class Waterbirds(GroupFiles):
    """Landbirds (0) and waterbirds (1) on land (0) or water (1); 95 % of the training images agree.

    Validation and test are balanced over backgrounds within each class. Three landbird species count as waterbirds in
    the published labels, which are used unchanged, so results on corrected copies are not comparable.
    """

    attribute_names = ("land", "water")
    expected: Mapping[str, Counts] = {
        "train": ((3498, 184), (56, 1057)),
        "val": ((467, 466), (133, 133)),
        "test": ((2255, 2255), (642, 642)),
    }

    def __init__(
        self,
        root: str,
        *,
        size: int | None = 256,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Check the arguments. Others are as in `FileSource`.

        - root: the folder with metadata.csv.
        - size: resident images are resized to this, regardless of aspect ratio.
        """
        super().__init__(root, mean=mean, std=std, size=size, stretch=True, storage=storage, cache_dir=cache_dir)

    def class_names(self) -> tuple[str, ...]:
        """Return the names of classes 0 and 1."""
        return ("landbird", "waterbird")

    def read_rows(self) -> dict[str, Rows]:
        """Return the rows of every split, in the order of metadata.csv."""
        path = need(self.root / "metadata.csv", _LAYOUT)
        table = read_columns(path, ("img_filename", "y", "split", "place"))
        binary = {"0": 0, "1": 1}
        return by_split(
            table["img_filename"],
            codes(table["split"], {"0": 0, "1": 1, "2": 2}, where=f"{path}, column split"),
            codes(table["y"], binary, where=f"{path}, column y"),
            codes(table["place"], binary, where=f"{path}, column place"),
        )

    def check_rows(self, rows: Mapping[str, Rows]) -> None:
        """Raise DataError for an image that is missing, or has no row or more than one."""
        check_files(rows, images_below(self.root), where=str(self.root / "metadata.csv"))
