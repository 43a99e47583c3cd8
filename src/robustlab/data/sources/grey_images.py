"""Read grey 28x28 images with ten classes, from which coloured, textured and stacked data sets are made."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import check_labels
from robustlab.data.sources.digits import Digits
from robustlab.data.sources.file_source import need
from robustlab.data.sources.torchvision_sets import Torchvision

Images = Literal["mnist_npz", "mnist", "fashion_mnist", "digits"]
"""mnist_npz: a file of NumPy arrays; mnist, fashion_mnist: the release's files; digits: scikit-learn's 8x8 digits."""

SIDE = 28
_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_STROKES = 20  # MNIST scales its digits to 20x20 pixels and leaves 4 on each side


@dataclass(frozen=True)
class GreyImages:
    """Images, (N, 28, 28) uint8, and labels, (N,) int64 in 0..9, in the order of their source."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @property
    def pooled(self) -> tuple[Tensor, Tensor]:
        """All images and labels: the training images, then the test images."""
        return torch.cat([self.train, self.test]), torch.cat([self.train_labels, self.test_labels])


def grey_images(images: str, *, root: str, file: str | None, download: bool) -> GreyImages:
    """Return the images of a source, one of `Images`.

    - root: folder of the data sets.
    - file: for mnist_npz, an .npz with train_images, train_labels, test_images, test_labels; None for
      mnist/mnist_12k.npz below root.
    - download: download mnist or fashion_mnist if missing.

    Raises ConfigError if they are missing, DataError if they are damaged.
    """
    if images == "mnist_npz":
        path = Path(root).expanduser() / "mnist" / "mnist_12k.npz" if file is None else Path(file).expanduser()
        return _from_npz(path)
    if images in ("mnist", "fashion_mnist"):
        return _from_release(images, root, download)
    if images == "digits":
        return _from_digits()
    raise ConfigError(f"dataset.source.images must be mnist_npz, mnist, fashion_mnist or digits, not {images!r}")


def _from_npz(path: Path) -> GreyImages:
    need(
        path,
        f"expected an .npz with {', '.join(_KEYS)}; set dataset.source.file, or dataset.source.images=mnist to read "
        "the release, or dataset.source.images=digits for scikit-learn's digits, which need no file",
    )
    try:
        # opened here, because NumPy would leave a damaged file open
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            missing = [key for key in _KEYS if key not in archive]
            if missing:
                raise DataError(f"{path}: no array {', '.join(missing)}; it has {', '.join(archive.files)}")
            arrays = {key: archive[key] for key in _KEYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an .npz file that can be read ({error})") from error
    for part in ("train", "test"):
        pixels, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), SIDE, SIDE):
            raise DataError(
                f"{path}: {part}_images are {pixels.dtype} {pixels.shape}, expected uint8 {(len(labels), SIDE, SIDE)}"
            )
        check_labels(torch.from_numpy(labels.astype(np.int64)), 10, where=f"{path}, {part}_labels")
    train, train_labels, test, test_labels = (torch.from_numpy(arrays[key]) for key in _KEYS)
    return GreyImages(train, train_labels.long(), test, test_labels.long())


def _from_release(name: str, root: str, download: bool) -> GreyImages:
    source = Torchvision(name, root=root, download=download, mean=(0.0,), std=(1.0,))
    train, test = source.split("train"), source.split("test")
    assert isinstance(train.images, Tensor)
    assert isinstance(test.images, Tensor)
    return GreyImages(train.images[:, 0], train.labels, test.images[:, 0], test.labels)


def _from_digits() -> GreyImages:
    """Return scikit-learn's digits, enlarged to 20x20 in frames of 28x28."""
    train, test = (Digits().split(name) for name in ("train", "test"))
    assert isinstance(train.images, Tensor)
    assert isinstance(test.images, Tensor)
    return GreyImages(_enlarged(train.images), train.labels, _enlarged(test.images), test.labels)


def _enlarged(images: Tensor) -> Tensor:
    grey = F.interpolate(images.double(), (_STROKES, _STROKES), mode="bilinear", align_corners=False)
    frame = (SIDE - _STROKES) // 2
    return F.pad(grey.round().to(torch.uint8)[:, 0], (frame, frame, frame, frame))
