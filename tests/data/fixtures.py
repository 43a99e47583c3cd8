"""Small files in the layouts of data sets."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from robustlab.data.dataset import LazyImages


def picture(path: Path, value: int, size: tuple[int, int] = (6, 6)) -> None:
    """Write a grey image of (width, height) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # lossless whatever the suffix says, so that pixels can be compared
    Image.new("RGB", size, (value, value, value)).save(path, "PNG")


def values(images: torch.Tensor | LazyImages) -> list[int]:
    """Return the upper left grey level of every image."""
    if isinstance(images, torch.Tensor):
        return images[:, 0, 0, 0].tolist()
    return [int(images.decode(index)[0, 0, 0]) for index in range(len(images))]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)
    return path


def digits_npz(path: Path, train: int = 600, test: int = 200) -> Path:
    """Write grey images with the classes 0..9 in turn: noise in a frame of 4, brightest in row and column 4 + class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, count in (("train", train), ("test", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 4:24, 4:24] = np.random.default_rng(count).integers(0, 100, (count, 20, 20), dtype=np.uint8)
        images[np.arange(count), 4 + labels, 4 + labels] = 255
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    np.savez_compressed(path, **arrays)
    return path
