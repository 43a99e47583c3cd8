"""The usual data path that ours is measured against: Pillow and torchvision, one sample at a time, in a DataLoader."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from robustlab.data.transforms.policy_tables import SUB_POLICIES, magnitudes

Picture = Image.Image
SIZE = 32
NORMALIZE = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def pipeline(*strong: Any) -> transforms.Compose:
    """Return crop, flip, the strong transforms if any, to a normalised tensor."""
    weak = [transforms.RandomCrop(SIZE, padding=4), transforms.RandomHorizontalFlip()]
    return transforms.Compose([*weak, *strong, transforms.ToTensor(), transforms.Normalize(*NORMALIZE)])


class Views(Dataset[tuple[Tensor, ...]]):
    """Independent views of each image."""

    def __init__(self, images: Tensor, views: Sequence[Callable[[Picture], Tensor]]) -> None:
        self.images: np.ndarray = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.views = views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        picture = Image.fromarray(self.images[index])
        return tuple(view(picture) for view in self.views)


def serve(images: Tensor, views: Sequence[Callable[[Picture], Tensor]], *, batch: int, workers: int = 0) -> None:
    """Go once through the images."""
    for _ in DataLoader(Views(images, views), batch_size=batch, shuffle=True, num_workers=workers):
        pass


def _affine(picture: Picture, *matrix: float) -> Picture:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, fillcolor=(128, 128, 128))


_OPERATIONS: dict[str, Callable[[Picture, float], Picture]] = {
    "ShearX": lambda picture, m: _affine(picture, 1, m, 0, 0, 1, 0),
    "ShearY": lambda picture, m: _affine(picture, 1, 0, 0, m, 1, 0),
    "TranslateX": lambda picture, m: _affine(picture, 1, 0, int(m), 0, 1, 0),
    "TranslateY": lambda picture, m: _affine(picture, 1, 0, 0, 0, 1, int(m)),
    "Rotate": lambda picture, m: picture.rotate(m, fillcolor=(128, 128, 128)),
    "Brightness": lambda picture, m: ImageEnhance.Brightness(picture).enhance(1 + m),
    "Color": lambda picture, m: ImageEnhance.Color(picture).enhance(1 + m),
    "Contrast": lambda picture, m: ImageEnhance.Contrast(picture).enhance(1 + m),
    "Sharpness": lambda picture, m: ImageEnhance.Sharpness(picture).enhance(1 + m),
    "Posterize": lambda picture, m: ImageOps.posterize(picture, int(m)),
    "Solarize": lambda picture, m: ImageOps.solarize(picture, int(m)),
    "AutoContrast": lambda picture, m: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, m: ImageOps.equalize(picture),
    "Invert": lambda picture, m: ImageOps.invert(picture),
}
_UNSIGNED = ("Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")


class LeanPolicy:
    """AutoAugment's CIFAR-10 policy with nothing but Pillow's own calls: about twice as fast as torchvision's class."""

    def __init__(self) -> None:
        self._pairs = [
            [(name, probability, float(magnitudes(name, 10, SIZE, SIZE)[level])) for name, probability, level in pair]
            for pair in SUB_POLICIES["cifar10"]
        ]

    def __call__(self, picture: Picture) -> Picture:
        """Return the picture after one sub-policy."""
        for name, probability, magnitude in random.choice(self._pairs):
            if random.random() < probability:
                sign = 1.0 if name in _UNSIGNED or random.random() < 0.5 else -1.0
                picture = _OPERATIONS[name](picture, sign * magnitude)
        return picture


def random_images(count: int) -> Tensor:
    """Return uint8 [count, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
