"""UrbanCars: cars with two shortcuts at once, background and co-occurring object (Li et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.file_source import image_files, need
from robustlab.data.sources.group_files import SPLITS, GroupFiles, Rows
from robustlab.data.sources.group_tables import Counts
from robustlab.data.storage.encoded_images import listing

_KINDS = ("urban", "country")
_FOLDERS = {
    "train": "bg-0.95_co_occur_obj-0.95/train",
    "val": "bg-0.5_co_occur_obj-0.5/val",
    "test": "bg-0.5_co_occur_obj-0.5/test",
}
_LAYOUT = (
    "expected urbancars as unpacked: bg-0.95_co_occur_obj-0.95/train and bg-0.5_co_occur_obj-0.5/{val,test} with the "
    "folders obj-{urban,country}_bg-{urban,country}_co_occur_obj-{urban,country}"
)
_SHARE = 0.95  # share of a class's training images for which each shortcut agrees
_CELLS = {"train": (3610, 190, 190, 10), "val": (125,) * 4, "test": (125,) * 4}  # both agree, background, object, none
_BOTH = tuple(f"{bg}_bg_{co}_obj" for bg, co in product(_KINDS, _KINDS))


class UrbanCars(GroupFiles):
    """Urban (0) and country (1) cars; the attribute is the background, the co-occurring object, or both.

    With `group_label` "both", attribute = 2 * background + object, and each evaluation derives the benchmark's metrics
    from the eight groups: `<split>/id_accuracy` (weighted by the training shares 0.9025, 0.0475, 0.0475, 0.0025),
    `bg_gap`, `co_occur_obj_gap` and `both_gap` (accuracy if that shortcut, or both, disagrees, minus id_accuracy).
    """

    def __init__(
        self,
        root: str,
        *,
        group_label: Literal["bg", "co_occur_obj", "both"] = "both",
        size: int | None = 256,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Check the arguments. `root`: the folder urbancars, where files ending in _mask.png are ignored; others are as
        in `FileSource`.
        """
        super().__init__(root, mean=mean, std=std, size=size, storage=storage, cache_dir=cache_dir)
        if group_label not in ("bg", "co_occur_obj", "both"):
            raise ConfigError(f"dataset.source.group_label must be bg, co_occur_obj or both, not {group_label!r}")
        self.group_label = group_label
        self.attribute_names = _BOTH if group_label == "both" else _KINDS
        self.expected = {name: self._expected(name) for name in SPLITS}

    def class_names(self) -> tuple[str, ...]:
        """Return the names of classes 0 and 1."""
        return _KINDS

    def read_rows(self) -> dict[str, Rows]:
        """Return the rows of every split: by folder (car, background, object), then by name."""
        return {name: self._read(name) for name in SPLITS}

    def derived_metrics(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return id_accuracy and the three gaps for each split whose eight groups were measured."""
        derived: dict[str, float] = {}
        for split in SPLITS if self.group_label == "both" else ():
            keys = {
                (y, bg, co): f"{split}/group/{_KINDS[y]}-{_BOTH[2 * bg + co]}"
                for y, bg, co in product((0, 1), repeat=3)
            }
            if not all(key in measured for key in keys.values()):
                continue
            # accuracy by (background agrees, object agrees), mean over the two classes
            accuracy = {
                (bg, co): sum(measured[keys[y, y ^ (not bg), y ^ (not co)]] for y in (0, 1)) / 2
                for bg, co in product((True, False), repeat=2)
            }
            share = {True: _SHARE, False: 1 - _SHARE}
            within = sum(value * share[bg] * share[co] for (bg, co), value in accuracy.items())
            derived |= {
                f"{split}/id_accuracy": within,
                f"{split}/bg_gap": accuracy[False, True] - within,
                f"{split}/co_occur_obj_gap": accuracy[True, False] - within,
                f"{split}/both_gap": accuracy[False, False] - within,
            }
        return derived

    def _attribute(self, bg: int, co: int) -> int:
        return {"bg": bg, "co_occur_obj": co, "both": 2 * bg + co}[self.group_label]

    def _read(self, name: str) -> Rows:
        rows = Rows([], [], [])
        folder = need(self.root / _FOLDERS[name], _LAYOUT)
        empty: list[str] = []
        for y, bg, co in product((0, 1), repeat=3):
            cell = f"obj-{_KINDS[y]}_bg-{_KINDS[bg]}_co_occur_obj-{_KINDS[co]}"
            members = [file for file in image_files(need(folder / cell, _LAYOUT)) if not file.endswith("_mask.png")]
            empty += [] if members else [f"{_FOLDERS[name]}/{cell}"]
            rows.files.extend(f"{_FOLDERS[name]}/{cell}/{file}" for file in members)
            rows.labels.extend([y] * len(members))
            rows.attributes.extend([self._attribute(bg, co)] * len(members))
        if empty:
            raise DataError(listing(empty, f"{self.root}: {len(empty)} folder(s) without an image"))
        return rows

    def _expected(self, name: str) -> Counts:
        table = [[0] * len(self.attribute_names) for _ in _KINDS]
        for y, bg, co in product((0, 1), repeat=3):
            table[y][self._attribute(bg, co)] += _CELLS[name][2 * (bg != y) + (co != y)]
        return tuple(tuple(row) for row in table)
