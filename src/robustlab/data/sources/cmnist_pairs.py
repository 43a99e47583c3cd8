"""Coloured MNIST as in Correct-n-Contrast (Zhang et al., ICML 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Split, TaskSpec
from robustlab.data.sources.coloured_digits import ColouredDigits
from robustlab.data.sources.grey_images import SIDE, GreyImages, Images
from robustlab.data.sources.shortcuts import check_share, shuffled

_HUES = {  # of `CMNISTPairs`: hue 0, 0.2, 0.4, 0.6, 0.8 at full saturation
    "red": (255, 0, 0), "yellow_green": (203, 255, 0), "spring_green": (0, 255, 102), "azure": (0, 102, 255),
    "purple": (204, 0, 255),
}  # fmt: skip
_PAINTED = 120  # grey level from which `CMNISTPairs` paints a pixel


class CMNISTPairs(ColouredDigits):
    """Correct-n-Contrast (Zhang et al., ICML 2022): classes {0, 1}, {2, 3}, ..., {8, 9} and five hues.

    A training image has the hue of its class with probability 0.995, else one of the other four; pixels of grey level
    120 and above are painted, the rest stays grey. Validation (a random part of MNIST's training images) and test have
    random hues.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        correlation: float = 0.995,
        val_share: float = 0.2,
        seed: int = 0,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        """Check the arguments. Others are as in `ColouredDigits`.

        - correlation: probability of the class's hue in train.
        - val_share: share of MNIST's training images used for validation.
        """
        check_share("correlation", correlation)
        if not 0.0 < val_share < 1.0:
            raise ConfigError(f"dataset.source.val_share must lie between 0 and 1, not {val_share}")
        names = ("01", "23", "45", "67", "89")
        task = TaskSpec(5, (3, SIDE, SIDE), tuple(mean), tuple(std), names, tuple(_HUES))
        super().__init__(task, images=images, root=root, file=file, download=download, seed=seed)
        self.correlation, self.val_share = correlation, val_share

    def _made(self, name: str, grey: GreyImages) -> Split:
        pixels, digits, index = grey.test, grey.test_labels, torch.arange(len(grey.test))
        if name != "test":
            order = shuffled(self._key("order"), len(grey.train))
            held_out = round(self.val_share * len(order))
            index = order[:held_out] if name == "val" else order[held_out:]
            pixels, digits = grey.train[index], grey.train_labels[index]
        labels = digits // 2
        u = rng.uniform(self._key(f"{name} hues"), index, 2)
        other = (labels + 1 + (u[:, 1] * 4).long().clamp(max=3)) % 5
        hues = torch.where(u[:, 0] < self.correlation, labels, other)
        if name != "train":
            hues = (u[:, 0] * 5).long().clamp(max=4)
        hue = torch.tensor(list(_HUES.values()), dtype=torch.uint8)[hues]
        painted = torch.where((pixels >= _PAINTED)[:, None], hue[:, :, None, None], pixels[:, None])
        return Split(painted, labels, hues)
