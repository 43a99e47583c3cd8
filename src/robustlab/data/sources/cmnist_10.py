"""Coloured MNIST as in Learning from Failure (Nam et al., NeurIPS 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Split, TaskSpec
from robustlab.data.sources.coloured_digits import ColouredDigits
from robustlab.data.sources.grey_images import SIDE, GreyImages, Images
from robustlab.data.sources.shortcuts import aligned, check_share
from robustlab.data.transforms.transform import single_thread

_NAMED_COLOURS = {  # of `CMNIST10`, by digit; the release keeps its ten colours in a file, these are ours
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (225, 225, 0), "magenta": (225, 0, 225),
    "cyan": (0, 255, 255), "orange": (255, 128, 0), "pink": (255, 0, 128), "violet": (128, 0, 255),
    "grey": (128, 128, 128),
}  # fmt: skip
_COLOUR_NOISE = (0.05, 0.02, 0.01, 0.005)  # standard deviation per severity
_CHUNK = 4096


class CMNIST10(ColouredDigits):
    """Learning from Failure (Nam et al., NeurIPS 2020): ten digits, each with its own colour.

    A share of each digit's training images has its colour ("aligned": 0.95, 0.98, 0.99 or 0.995 in the paper), the
    others have the other nine in equal parts; a tenth of MNIST's test images is aligned. A pixel is the grey level
    times a colour that varies between images, less so at higher severity.
    """

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        aligned_share: float = 0.95,
        severity: int = 1,
        seed: int = 0,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Check the arguments. Others are as in `ColouredDigits`.

        - aligned_share: aligned share of the training images.
        - severity: 1 to 4.
        """
        check_share("aligned_share", aligned_share)
        if severity not in range(1, len(_COLOUR_NOISE) + 1):
            raise ConfigError(f"dataset.source.severity must be 1, 2, 3 or 4, not {severity}")
        names = tuple("0123456789")
        task = TaskSpec(10, (3, SIDE, SIDE), tuple(mean), tuple(std), names, tuple(_NAMED_COLOURS))
        super().__init__(task, images=images, root=root, file=file, download=download, seed=seed)
        self.aligned_share, self.severity = aligned_share, severity

    def _made(self, name: str, grey: GreyImages) -> Split:
        train = name == "train"
        pixels, labels = (grey.train, grey.train_labels) if train else (grey.test, grey.test_labels)
        index = torch.arange(len(labels))
        share = self.aligned_share if train else 0.1
        colours = aligned(labels, share, num_attributes=10, key=self._key(f"{name} colours"), index=index)
        u = rng.uniform(self._key(f"{name} shades"), index, 6).double().clamp_min(1e-12)
        normal = (-2 * u[:, :3].log()).sqrt() * torch.cos(2 * math.pi * u[:, 3:])  # Box and Muller
        mean = torch.tensor(list(_NAMED_COLOURS.values()), dtype=torch.float64)[colours] / 255
        colour = (mean + _COLOUR_NOISE[self.severity - 1] * normal).clamp(0.0, 1.0)[:, :, None, None]
        with single_thread():
            painted = [(colour[part] * pixels[part][:, None]).to(torch.uint8) for part in index.split(_CHUNK)]
        return Split(torch.cat(painted), labels, colours)
