"""Small picture data sets on the disk, the same on every machine: a folder of PNG files, and CIFAR-10's Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def write_pictures(folder: Path) -> None:
    """Write `image_folder/` (3 classes) and `cifar10/plain_text/` (10): 120 training and 60 test images each."""
    for part, count in (("train", 120), ("test", 60)):
        for number, (label, picture) in enumerate(_drawn(count, classes=3, side=20, key=part)):
            path = folder / "image_folder" / part / f"class{label}" / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        _write_parquet(folder / "cifar10" / "plain_text" / f"{part}-00000-of-00001.parquet", count, key=part)


def _drawn(count: int, *, classes: int, side: int, key: str) -> Iterator[tuple[int, Image.Image]]:
    """Yield labels and noisy pictures with a bright square at a place that depends on the label."""
    draw = np.random.default_rng([len(key), classes, side])
    for number in range(count):
        label = number % classes
        pixels = draw.integers(0, 160, (side, side, 3), dtype=np.uint8)
        left = label * (side - 6) // max(classes - 1, 1)
        pixels[left : left + 6, 4:10, label % 3] = 250
        yield label, Image.fromarray(pixels)


def _write_parquet(path: Path, count: int, *, key: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list] = {"img": [], "label": []}
    for label, picture in _drawn(count, classes=10, side=32, key=key):
        encoded = io.BytesIO()
        picture.save(encoded, "PNG")
        rows["img"].append({"bytes": encoded.getvalue(), "path": None})
        rows["label"].append(label)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path)
