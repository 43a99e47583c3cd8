"""ImageNet-9 and the Backgrounds Challenge (Xiao et al., ICLR 2021), which separates foregrounds and backgrounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.file_source import FileSource, image_files, need, subfolders
from robustlab.data.storage.encoded_images import listing

_CLASSES = ("dog", "bird", "wheeled vehicle", "reptile", "carnivore", "insect", "musical instrument", "primate", "fish")
_FOLDERS = tuple(f"{number:02d}_{name}" for number, name in enumerate(_CLASSES))
VARIANTS = ("mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")
_LAYOUT = (
    "expected in9l/{train,val} or original/{train,val}, and bg_challenge/{original,mixed_same,mixed_rand,...}/val, "
    "each with the nine class folders 00_dog to 08_fish"
)


class ImageNet9(FileSource):
    """Nine classes of ImageNet; the test split is the curated original, and the variants are further splits.

    Train and val come from the training download, whose val is uncurated and not meant for testing. There are no group
    labels; each evaluation derives `test/bg_gap`, the accuracy on mixed_same minus the accuracy on mixed_rand.
    """

    def __init__(
        self,
        root: str,
        *,
        train_set: Literal["in9l", "original"] = "in9l",
        variants: Sequence[str] = VARIANTS,
        size: int | None = 224,
        storage: str = "resident",
        cache_dir: str | None = None,
        mean: Sequence[float] = (0.4717, 0.4499, 0.3837),
        std: Sequence[float] = (0.26, 0.2516, 0.2575),
    ) -> None:
        """Check the arguments. Others are as in `FileSource`.

        - train_set: "in9l" (larger) or "original", the first folder of the path.
        - variants: splits in addition to test.
        """
        super().__init__(root, mean=mean, std=std, size=size, storage=storage, cache_dir=cache_dir)
        unknown = [name for name in variants if name not in VARIANTS]
        if unknown:
            raise ConfigError(f"dataset.source.variants: no {', '.join(unknown)}; there is {', '.join(VARIANTS)}")
        if train_set not in ("in9l", "original"):
            raise ConfigError(f"dataset.source.train_set must be in9l or original, not {train_set!r}")
        self.train_set = train_set
        self.splits = ("train", "val", "test", *variants)

    def class_names(self) -> tuple[str, ...]:
        """Return the nine names."""
        return _CLASSES

    def files(self, name: str) -> tuple[list[str], list[int]]:
        """Return files and labels of one of `splits`: by class, then by name."""
        if name not in self.splits:
            raise ConfigError(f"imagenet9 has the splits {', '.join(self.splits)}, not {name!r}")
        part = f"{self.train_set}/{name}" if name in ("train", "val") else f"bg_challenge/{name}/val"
        part = part.replace("/test/", "/original/")
        there = subfolders(need(self.root / part, _LAYOUT))
        different = sorted(set(there).symmetric_difference(_FOLDERS))
        if different:
            raise DataError(listing(different, f"{self.root / part}: {len(different)} class folder(s) differ"))
        files: list[str] = []
        labels: list[int] = []
        for label, folder in enumerate(_FOLDERS):
            members = image_files(self.root / part / folder)
            files += [f"{part}/{folder}/{file}" for file in members]
            labels += [label] * len(members)
        return files, labels

    def derived_metrics(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return test/bg_gap if both of its splits were measured."""
        pair = ("mixed_same/accuracy", "mixed_rand/accuracy")
        if not all(key in measured for key in pair):
            return {}
        return {"test/bg_gap": measured[pair[0]] - measured[pair[1]]}
