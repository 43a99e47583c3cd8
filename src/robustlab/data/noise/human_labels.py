"""Labels from human annotators: CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import LazyImages
from robustlab.data.noise.noise_model import NoiseModel


class HumanLabels(NoiseModel):
    """One annotation in `CIFAR-10_human.pt` or `CIFAR-100_human.pt`, as published by the authors.

    The files follow the order of CIFAR's python pickles; their clean labels are compared with the data set's.

    - key: "aggre_label", "worse_label", "random_label1" .. "random_label3" (CIFAR-10N, true rates 9.01, 40.21, 17.23,
      18.12 and 17.64 %) or "noisy_label" (CIFAR-100N, 40.20 %).
    - clean_key: entry with the clean labels.
    """

    asymmetric = False  # DivideMix, UNICON and CrossSplit mean class-dependent flips by asymmetric

    def __init__(self, *, file: str, key: str, clean_key: str = "clean_label") -> None:
        """See the class."""
        self.file, self.key, self.clean_key = str(file), key, clean_key

    def apply(
        self, clean: Tensor, *, num_classes: int, generator: np.random.Generator, images: Tensor | LazyImages | None
    ) -> Tensor:
        """Return the human labels, (N,) int64. Raises ConfigError if they belong to other samples."""
        content = read_label_file(Path(self.file))
        expected = _labels(content, self.clean_key, self.file)
        if len(expected) != len(clean):
            raise ConfigError(
                f"{self.file} has {len(expected)} labels, but the training split has {len(clean)} samples; the "
                f"file belongs to another data set"
            )
        differing = torch.nonzero(expected != clean).flatten()
        if len(differing):
            row = int(differing[0])
            raise ConfigError(
                f"{self.file}: {self.clean_key!r} differs from the labels of the data set in {len(differing)} of "
                f"{len(clean)} samples, first in row {row} ({int(expected[row])}, not {int(clean[row])}); the data set "
                f"must be in the order of the python release of CIFAR"
            )
        return _labels(content, self.key, self.file)


def read_label_file(path: Path) -> Mapping[str, Any]:
    """Return the content of a published label file, without executing anything that a pickle could contain.

    The files are pickles of NumPy arrays, so torch's restricted unpickler is allowed the few harmless names that these
    need, and refuses all others.

    Raises ConfigError if the file is missing, DataError if it is damaged or refused.
    """
    if not path.is_file():
        raise ConfigError(
            f"there is no label file {path}; download it from https://github.com/UCSC-REAL/cifar-10-100n (data/) or "
            f"set noise.model.file"
        )
    array = np.zeros(1, dtype=np.int64)
    rebuild_array, rebuild_scalar = array.__reduce__()[0], array[0].__reduce__()[0]
    allowed: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "bhilqBHILQfd"}]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1 and 2 write different names
        allowed += [(rebuild_array, f"{module}._reconstruct"), (rebuild_scalar, f"{module}.scalar")]
    try:
        with safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # torch's own message suggests loading without restrictions, which must not reach the user
        name = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"{name.group(1)} was refused" if name else type(error).__name__
        raise DataError(f"{path} is damaged, or contains more than arrays of numbers ({reason})") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} contains a {type(content).__name__}, not a dictionary of label arrays")
    return content


def _labels(content: Mapping[str, Any], key: str, file: str) -> Tensor:
    if key not in content:
        raise ConfigError(f"{file} has no entry {key!r}; it has {', '.join(map(str, content))}")
    array = np.asarray(content[key])
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{file}: {key!r} must be one integer per sample, not {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.int64))
