"""Label noise with known transitions: symmetric, asymmetric, pair flip, and labels from a file.

Every model is defined on clean labels only: a flipped label is never flipped again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import LazyImages, TaskSpec
from robustlab.data.noise import label_files
from robustlab.data.noise.class_maps import CIFAR10_CLASSES, CIFAR10_FLIPS, consecutive_successor, superclass_successor
from robustlab.data.noise.noise_model import NoiseModel, Rate, check_rate


class Symmetric(NoiseModel):
    """int(rate * N) samples, drawn without replacement, get a uniformly random label.

    - inclusive: draw from all classes including the true one, as in the code of DivideMix, UNICON and CrossSplit, so
      that the true rate is about rate * (1 - 1 / C); otherwise draw from the other classes, with true rate int(rate *
      N) / N.
    """

    asymmetric = False

    def __init__(self, *, rate: Rate, inclusive: bool = True) -> None:
        """See the class."""
        self.rate, self.inclusive = check_rate(rate), inclusive

    def apply(
        self, clean: Tensor, *, num_classes: int, generator: np.random.Generator, images: Tensor | LazyImages | None
    ) -> Tensor:
        """Return the assigned labels, (N,) int64."""
        count = int(self.rate * len(clean))
        drawn = torch.from_numpy(generator.permutation(len(clean))[:count])
        assigned = clean.clone()
        if self.inclusive:
            assigned[drawn] = torch.from_numpy(generator.integers(num_classes, size=count))
        else:
            step = torch.from_numpy(generator.integers(1, num_classes, size=count))
            assigned[drawn] = (clean[drawn] + step) % num_classes
        return assigned


class _ClassFlip(NoiseModel):
    """Each class flips to one fixed wrong class, or not at all (to itself)."""

    asymmetric = True

    def __init__(self, rate: Rate, sampling: str) -> None:
        if sampling not in ("exact", "bernoulli"):
            raise ConfigError(f"noise.model.sampling={sampling} is neither exact nor bernoulli")
        self.rate, self.sampling = check_rate(rate), sampling

    def successor(self, num_classes: int) -> Tensor:
        """Return the class that each class flips to, (C,) int64."""
        raise NotImplementedError

    def apply(
        self, clean: Tensor, *, num_classes: int, generator: np.random.Generator, images: Tensor | LazyImages | None
    ) -> Tensor:
        """Return the assigned labels, (N,) int64."""
        if self.sampling == "exact":
            drawn = np.zeros(len(clean), dtype=bool)
            drawn[generator.permutation(len(clean))[: int(self.rate * len(clean))]] = True
        else:
            drawn = generator.random(len(clean)) < self.rate
        return torch.where(torch.from_numpy(drawn), self.successor(num_classes)[clean], clean)


class AsymmetricCIFAR10(_ClassFlip):
    """truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog (Patrini et al., CVPR 2017).

    - sampling: "exact" draws int(rate * N) samples of all classes and flips the ones in the five classes; "bernoulli"
      draws each sample with probability `rate`. Either way the true rate is about rate / 2, since five of ten classes
      never flip.
    """

    def __init__(self, *, rate: Rate, sampling: str = "exact") -> None:
        """See the class."""
        super().__init__(rate, sampling)

    def check(self, task: TaskSpec) -> None:
        """Raise ConfigError unless the classes are CIFAR-10's, in its order."""
        names_fit = tuple(task.class_names) == CIFAR10_CLASSES or (not task.class_names and task.image_shape[0] == 3)
        if task.num_classes != 10 or not names_fit:
            raise ConfigError(
                "noise=asymmetric_cifar10 flips between classes of CIFAR-10; use dataset=cifar10, or "
                "noise=pair_flip for another data set"
            )

    def successor(self, num_classes: int) -> Tensor:
        """Return the class that each class flips to, (10,) int64."""
        successor = torch.arange(num_classes)
        for source, target in CIFAR10_FLIPS.items():
            successor[source] = target
        return successor


class AsymmetricCIFAR100(_ClassFlip):
    """Each class flips to the next one in its group, cyclically, with probability `rate`.

    - grouping: "superclass", the next larger fine index in the same superclass; "consecutive5", blocks of five fine
      indices, as in the code of UNICON and CrossSplit, where only 6 of the 100 flips stay within a superclass. The two
      are different tasks.
    """

    def __init__(self, *, rate: Rate, grouping: str = "superclass", sampling: str = "bernoulli") -> None:
        """See the class."""
        super().__init__(rate, sampling)
        if grouping not in ("superclass", "consecutive5"):
            raise ConfigError(f"noise.model.grouping={grouping} is neither superclass nor consecutive5")
        self.grouping = grouping

    def check(self, task: TaskSpec) -> None:
        """Raise ConfigError unless there are 100 classes, whose order is then assumed to be CIFAR-100's."""
        if task.num_classes != 100:
            raise ConfigError(
                f"noise=asymmetric_cifar100 flips between the 100 classes of CIFAR-100, but the data set has "
                f"{task.num_classes}; use dataset=cifar100, or noise=pair_flip"
            )

    def successor(self, num_classes: int) -> Tensor:
        """Return the class that each class flips to, (100,) int64."""
        return superclass_successor() if self.grouping == "superclass" else consecutive_successor()


class PairFlip(_ClassFlip):
    """Class c flips to class c + 1 (the last to the first) with probability `rate`.

    UNICON's code uses this as asymmetric noise for Tiny-ImageNet.
    """

    def __init__(self, *, rate: Rate, sampling: str = "bernoulli") -> None:
        """See the class."""
        super().__init__(rate, sampling)

    def successor(self, num_classes: int) -> Tensor:
        """Return the class that each class flips to, (C,) int64."""
        return (torch.arange(num_classes) + 1) % num_classes


class FixedLabels(NoiseModel):
    """Labels from a file: the `labels.npz` of another run, or an .npy or .npz array of one integer per sample."""

    needs_clean_labels = False

    def __init__(self, *, file: str, key: str = "assigned", asymmetric: bool | None = None) -> None:
        """Check the arguments.

        - key: the entry in an .npz.
        - asymmetric: see `NoiseModel`; None takes it from the file's record when that is read.
        """
        self.file, self.key, self.asymmetric = str(file), key, asymmetric

    def apply(
        self, clean: Tensor, *, num_classes: int, generator: np.random.Generator, images: Tensor | LazyImages | None
    ) -> Tensor:
        """Return the labels in the file. Raises ConfigError if they belong to other samples, DataError if damaged."""
        assigned = label_files.load(Path(self.file), self.key)
        if len(assigned) != len(clean):
            raise ConfigError(f"{self.file} has {len(assigned)} labels, the training split has {len(clean)} samples")
        record = label_files.read_record(Path(self.file))
        belongs_to = record.get("clean_hash")
        if belongs_to is not None and belongs_to != label_files.label_hash(clean):
            raise ConfigError(f"{self.file} was written for a data set with other labels, or in another order")
        if self.asymmetric is None:
            self.asymmetric = record.get("asymmetric")
        return assigned
