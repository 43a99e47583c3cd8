"""Coloured MNIST as in SubpopBench (Yang et al., ICML 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Split, TaskSpec
from robustlab.data.sources.coloured_digits import LABEL_NOISE, RED_GREEN, ColouredDigits, in_channel
from robustlab.data.sources.grey_images import SIDE, GreyImages, Images
from robustlab.data.sources.shortcuts import flipped


class CMNISTSubpop(ColouredDigits):
    """SubpopBench (Yang et al., ICML 2023): red or green digits; digits 0-4 (0) and 5-9 (1), a quarter wrong.

    The colour is the label, flipped with probability 0.2, in all splits: the first half of MNIST's training images are
    for training, the next sixth for validation, the last third for testing. The metric is worst-group accuracy. Images
    stay 28x28; the benchmark's 224x224 is a transform.
    """

    splits = ("train", "val", "test")
    provides: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        label_share: float = 0.5,
        attribute_share: float = 0.5,
        seed: int = 0,
        mean: Sequence[float] = (0.1307, 0.1307, 0.0),
        std: Sequence[float] = (0.3081, 0.3081, 0.3081),
    ) -> None:
        """Check the arguments. Others are as in `ColouredDigits`.

        - label_share, attribute_share: share of class 1 and of green in every split, reached by dropping images, first
          by attribute, then by label; 0.5 drops none.
        """
        for key, share in (("label_share", label_share), ("attribute_share", attribute_share)):
            if not 0.0 < share < 1.0:
                raise ConfigError(f"dataset.source.{key} must lie between 0 and 1, not {share}")
        task = TaskSpec(2, (3, SIDE, SIDE), tuple(mean), tuple(std), ("0-4", "5-9"), RED_GREEN)
        super().__init__(task, images=images, root=root, file=file, download=download, seed=seed)
        self.label_share, self.attribute_share = label_share, attribute_share

    def _made(self, name: str, grey: GreyImages) -> Split:
        total = len(grey.train)
        ends = {"train": (0, total // 2), "val": (total // 2, total * 2 // 3), "test": (total * 2 // 3, total)}
        index = torch.arange(*ends[name])
        labels = (grey.train_labels[index] >= 5).long()
        labels = flipped(labels, LABEL_NOISE, key=self._key("labels"), index=index)
        colours = flipped(labels, 0.2, key=self._key("colours"), index=index)
        kept = torch.arange(len(index))
        kept = kept[self._thinned(colours, self.attribute_share, index)]
        kept = kept[self._thinned(labels[kept], self.label_share, index[kept])]
        pixels = in_channel(grey.train[index[kept]], colours[kept], channels=3)
        return Split(pixels, labels[kept], colours[kept])

    def _thinned(self, values: Tensor, share: float, index: Tensor) -> Tensor:
        """Return the positions that remain, in order, so that ones make up `share` of the values."""
        if share == 0.5:
            return torch.arange(len(values))
        thinned = int(share < 0.5)  # the value that is too frequent
        odds = share / (1 - share) if thinned else (1 - share) / share
        members = torch.nonzero(values == thinned).flatten()
        wanted = min(len(members), int((len(values) - len(members)) * odds))
        order = torch.argsort(rng.uniform(self._key("thinning"), index[members], 1)[:, 0], stable=True)
        return torch.cat([torch.nonzero(values != thinned).flatten(), members[order[:wanted]]]).sort().values
