"""CIFAR-10/100, MNIST, Fashion-MNIST and SVHN, read from their original files by torchvision's classes.

torchvision is imported only when a split is read.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch

from robustlab.core.errors import ConfigError, DataError
from robustlab.core.files import made
from robustlab.data.dataset import DataSource, Split, TaskSpec, check_labels

_TIMEOUT = 15.0  # seconds without any data after which a download is aborted
_DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class _Release:
    """The files that torchvision reads (below the root), and the URL of the folder with their archives."""

    cls: str
    num_classes: int
    image_shape: tuple[int, int, int]
    files: tuple[str, ...]
    url: str
    class_names: tuple[str, ...] = ()


def _idx_files(cls: str) -> tuple[str, ...]:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{cls}/raw/{part}-ubyte" for part in parts)


_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_RELEASES = {
    "cifar10": _Release(
        "CIFAR10", 10, (3, 32, 32), tuple(f"cifar-10-batches-py/{file}" for file in _CIFAR10_FILES),
        "https://www.cs.toronto.edu/~kriz/", _CIFAR10_CLASSES,
    ),
    "cifar100": _Release(
        "CIFAR100", 100, (3, 32, 32), tuple(f"cifar-100-python/{file}" for file in ("train", "test", "meta")),
        "https://www.cs.toronto.edu/~kriz/",
    ),
    "mnist": _Release(
        "MNIST", 10, (1, 28, 28), _idx_files("MNIST"), "https://ossci-datasets.s3.amazonaws.com/mnist/", _DIGITS
    ),
    "fashion_mnist": _Release(
        "FashionMNIST", 10, (1, 28, 28), _idx_files("FashionMNIST"),
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", _FASHION_CLASSES,
    ),
    "svhn": _Release(
        "SVHN", 10, (3, 32, 32), ("train_32x32.mat", "test_32x32.mat"),
        "http://ufldl.stanford.edu/housenumbers/", _DIGITS,
    ),
}  # fmt: skip


class Torchvision(DataSource):
    """A data set of `torchvision.datasets`: "cifar10", "cifar100", "mnist", "fashion_mnist" or "svhn".

    Order and labels follow the release (for CIFAR-10 the python pickles, like the CIFAR-N labels). Archives of the
    release in `root` are unpacked; everything is checked against torchvision's checksums.
    """

    def __init__(
        self, dataset: str, *, root: str, download: bool = True, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        """Check the arguments.

        - root: folder of the files.
        - download: download missing files.
        - mean, std: per channel, for pixels in [0, 1].
        """
        if dataset not in _RELEASES:
            raise ConfigError(f"dataset.source.dataset must be one of {', '.join(_RELEASES)}, not {dataset!r}")
        self.dataset, self.download = dataset, download
        self.root = Path(root).expanduser()
        self._release = release = _RELEASES[dataset]
        self.task = TaskSpec(release.num_classes, release.image_shape, tuple(mean), tuple(std), release.class_names)

    def split(self, name: str) -> Split:
        """Return "train" or "test", with (N, C, H, W) uint8 images. Raises ConfigError, DataError."""
        if name not in ("train", "test"):
            raise ConfigError(f"{self.dataset} has the splits train and test, not {name!r}")
        cls = _torchvision_class(self._release.cls)
        if any(not (self.root / file).is_file() for file in self._release.files):
            self._prepare(cls)
        which = {"split": name} if self.dataset == "svhn" else {"train": name == "train"}
        try:
            data = cls(str(self.root), **which)
            labels = torch.as_tensor(data.labels if self.dataset == "svhn" else data.targets).to(torch.int64)
            images = torch.as_tensor(np.ascontiguousarray(data.data))
            if self.dataset.startswith("cifar"):
                images = images.permute(0, 3, 1, 2)  # torchvision keeps channels last
            images = images.reshape(len(labels), *self.task.image_shape).contiguous()
        # torchvision raises RuntimeError on a wrong checksum; the others come from reading damaged idx or .mat files
        except (RuntimeError, AssertionError, ValueError, TypeError, OSError, LookupError) as error:
            raise DataError(
                f"{self.dataset}: the files in {self.root} are damaged ({error or type(error).__name__}); remove "
                f"{', '.join(self._release.files)} and run again, or put good copies there"
            ) from error
        check_labels(labels, self.task.num_classes, where=f"{self.dataset} ({name})")
        return Split(images, labels)

    def _prepare(self, cls: Any) -> None:
        """Unpack archives found in the root, or else download them; files appear in the root only once complete."""
        archives = _archives(cls)
        complete = all((self.root / name).is_file() for name in archives)
        if not complete and not self.download:
            raise ConfigError(
                f"{self._advice(archives)}; or set dataset.source.download=true if this machine is online"
            )
        try:
            with made(self.root), tempfile.TemporaryDirectory(dir=self.root, prefix=".prepare-") as temporary:
                if complete:
                    self._unpack(Path(temporary), archives)
                self._fetch(cls, temporary, archives)
                for file in self._release.files:
                    (self.root / file).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(temporary, file), self.root / file)
        except OSError as error:
            raise ConfigError(
                f"cannot write the data folder {self.root} ({error.strerror or error}); "
                "free up space, or set paths.data_dir or dataset.source.root"
            ) from error

    def _unpack(self, folder: Path, archives: dict[str, str]) -> None:
        """Unpack the archives in the root for torchvision, so that it need not download them."""
        from torchvision.datasets.utils import check_integrity

        for name, md5 in archives.items():
            archive, target = self.root / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if archive.suffixes == [".gz"]:  # often repacked by mirrors; its own checksum detects damage
                    with gzip.open(archive) as packed, target.with_suffix("").open("wb") as file:
                        shutil.copyfileobj(packed, file)
                elif check_integrity(str(archive), md5):
                    target.symlink_to(archive.resolve())
                else:
                    raise EOFError("wrong checksum")
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DataError(
                    f"{self.dataset}: {archive} is damaged ({error}); download it again from {self._release.url}"
                ) from error

    def _fetch(self, cls: Any, folder: str, archives: dict[str, str]) -> None:
        """Let torchvision download, check and unpack the files missing from `folder`."""
        try:
            with _impatient():
                for split in ("train", "test") if self.dataset == "svhn" else (None,):
                    cls(folder, download=True, **({} if split is None else {"split": split}))
        except (RuntimeError, OSError, HTTPException) as error:
            network = isinstance(error, RuntimeError | HTTPException | URLError | ConnectionError | TimeoutError)
            if not network:
                raise  # a disk error
            reasons = re.findall(r"<urlopen error (.*?)>", str(error)) or [" ".join(str(error).split())]
            raise ConfigError(f"{self._advice(archives)} (the download failed: {reasons[0]})") from error

    def _advice(self, archives: dict[str, str]) -> str:
        """Describe what is missing, and which files to put where."""
        missing = [file for file in self._release.files if not (self.root / file).is_file()]
        some = "" if len(missing) == len(self._release.files) else f" ({', '.join(missing)} missing)"
        folder = (self.root / next(iter(archives))).parent
        names = ", ".join(Path(name).name for name in archives)
        return (
            f"{self.dataset} is not in {self.root}{some}; put {names} from {self._release.url} into {folder}, "
            "where it is checked and unpacked, or point dataset.source.root to the folder that has it"
        )


def _torchvision_class(name: str) -> Any:  # a class of torchvision.datasets, without useful types
    try:
        import torchvision.datasets
    except (
        ImportError,
        RuntimeError,
    ) as error:  # RuntimeError: a CUDA build of torchvision beside a CPU build of torch
        raise ConfigError(
            f"torchvision does not import ({error}); install the build of torchvision that belongs to torch "
            f"{torch.__version__}, or use dataset=parquet or dataset=image_folder"
        ) from error
    return getattr(torchvision.datasets, name)


def _archives(cls: Any) -> dict[str, str]:
    """Return downloaded file, below the root -> torchvision's MD5 checksum."""
    if hasattr(cls, "tgz_md5"):  # CIFAR
        return {cls.filename: cls.tgz_md5}
    if hasattr(cls, "resources"):  # MNIST and its kin
        return {f"{cls.__name__}/raw/{name}": md5 for name, md5 in cls.resources}
    return {name: md5 for _, name, md5 in (cls.split_list[split] for split in ("train", "test"))}  # SVHN


@contextmanager
def _impatient() -> Iterator[None]:
    """Set a socket timeout: torchvision's download has none, and would wait forever behind some firewalls."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
