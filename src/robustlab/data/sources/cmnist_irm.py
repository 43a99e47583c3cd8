"""Coloured MNIST as in invariant risk minimisation (Arjovsky et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Split, TaskSpec
from robustlab.data.sources.coloured_digits import LABEL_NOISE, RED_GREEN, ColouredDigits, in_channel
from robustlab.data.sources.grey_images import SIDE, GreyImages, Images
from robustlab.data.sources.shortcuts import flipped, shuffled


class CMNISTIrm(ColouredDigits):
    """Arjovsky et al. 2019: 14x14, two channels; digits 5-9 (0) and 0-4 (1), a quarter of the labels wrong.

    The colour is the label, flipped with probability 0.2 for even and 0.1 for odd training images (the two
    environments, in turn) and 0.9 for test. The first 5/6 of MNIST's training images are shuffled and train; the last
    sixth tests (splits "original"), or is a validation split like train while MNIST's test images test ("forks").
    Labels are noisy by construction: no honest classifier exceeds 75 %.
    """

    provides: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        protocol: str = "original",
        seed: int = 0,
        mean: Sequence[float] = (0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0),
    ) -> None:
        """Check the arguments. Others are as in `ColouredDigits`.

        - protocol: "original" (train, test) or "forks" (train, val, test).
        """
        if protocol not in ("original", "forks"):
            raise ConfigError(f"dataset.source.protocol must be original or forks, not {protocol!r}")
        task = TaskSpec(2, (2, SIDE // 2, SIDE // 2), tuple(mean), tuple(std), ("5-9", "0-4"), RED_GREEN)
        super().__init__(task, images=images, root=root, file=file, download=download, seed=seed)
        self.protocol = protocol
        self.splits = ("train", "test") if protocol == "original" else ("train", "val", "test")

    def _made(self, name: str, grey: GreyImages) -> Split:
        first = len(grey.train) * 5 // 6
        last = torch.arange(first, len(grey.train))
        rows = shuffled(self._key("order"), first) if name == "train" else last
        pixels, digits = grey.train[rows], grey.train_labels[rows]
        if name == "test" and self.protocol == "forks":
            pixels, digits = grey.test, grey.test_labels
        index = torch.arange(len(digits))
        labels = flipped((digits < 5).long(), LABEL_NOISE, key=self._key(f"{name} labels"), index=index)
        even, odd = (flipped(labels, e, key=self._key(f"{name} colours"), index=index) for e in (0.2, 0.1))
        colours = torch.where(index % 2 == 0, even, odd)
        if name == "test":
            colours = flipped(labels, 0.9, key=self._key("test colours"), index=index)
        return Split(in_channel(pixels[:, ::2, ::2], colours, channels=2), labels, colours)
