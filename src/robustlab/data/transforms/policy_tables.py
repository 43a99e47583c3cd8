"""The published search spaces: AutoAugment's sub-policies and the magnitudes of all policies.

AutoAugment: Cubuk et al. 2019 (arXiv 1805.09501), tables 7 and 9. RandAugment: Cubuk et al. 2020 (arXiv 1909.13719).
TrivialAugment, wide space: Mueller and Hutter 2021 (arXiv 2103.10158). Ranges as in torchvision.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CIFAR10 = """
Invert .1 0, Contrast .2 6 | Rotate .7 2, TranslateX .3 9 | Sharpness .8 1, Sharpness .9 3
ShearY .5 8, TranslateY .7 9 | AutoContrast .5 0, Equalize .9 0 | ShearY .2 7, Posterize .3 7
Color .4 3, Brightness .6 7 | Sharpness .3 9, Brightness .7 9 | Equalize .6 0, Equalize .5 0
Contrast .6 7, Sharpness .6 5 | Color .7 7, TranslateX .5 8 | Equalize .3 0, AutoContrast .4 0
TranslateY .4 3, Sharpness .2 6 | Brightness .9 6, Color .2 8 | Solarize .5 2, Invert .0 0
Equalize .2 0, AutoContrast .6 0 | Equalize .2 0, Equalize .6 0 | Color .9 9, Equalize .6 0
AutoContrast .8 0, Solarize .2 8 | Brightness .1 3, Color .7 0 | Solarize .4 5, AutoContrast .9 0
TranslateY .9 9, TranslateY .7 9 | AutoContrast .9 0, Solarize .8 3 | Equalize .8 0, Invert .1 0
TranslateY .7 9, AutoContrast .9 0
"""

_IMAGENET = """
Posterize .4 8, Rotate .6 9 | Solarize .6 5, AutoContrast .6 0 | Equalize .8 0, Equalize .6 0
Posterize .6 7, Posterize .6 6 | Equalize .4 0, Solarize .2 4 | Equalize .4 0, Rotate .8 8
Solarize .6 3, Equalize .6 0 | Posterize .8 5, Equalize 1. 0 | Rotate .2 3, Solarize .6 8
Equalize .6 0, Posterize .4 6 | Rotate .8 8, Color .4 0 | Rotate .4 9, Equalize .6 0
Equalize .0 0, Equalize .8 0 | Invert .6 0, Equalize 1. 0 | Color .6 4, Contrast 1. 8
Rotate .8 8, Color 1. 2 | Color .8 8, Solarize .8 7 | Sharpness .4 7, Invert .6 0
ShearX .6 5, Equalize 1. 0 | Color .4 0, Equalize .6 0 | Equalize .4 0, Solarize .2 4
Solarize .6 5, AutoContrast .6 0 | Invert .6 0, Equalize 1. 0 | Color .6 4, Contrast 1. 8
Equalize .8 0, Equalize .6 0
"""

# One row of a sub-policy: (operation, probability, bin of magnitude 0..9)
Step = tuple[str, float, int]


def _parse(text: str) -> list[tuple[Step, Step]]:
    """Return the sub-policies written as `operation probability bin, operation probability bin | ...`."""

    def step(words: str) -> Step:
        name, probability, number = words.split()
        return name, float(probability), int(number)

    pairs = [pair.split(",") for line in text.strip().splitlines() for pair in line.split("|")]
    return [(step(first), step(second)) for first, second in pairs]


SUB_POLICIES: dict[str, list[tuple[Step, Step]]] = {"cifar10": _parse(_CIFAR10), "imagenet": _parse(_IMAGENET)}

# The operations of RandAugment and TrivialAugment; AutoAugment also has Invert.
SPACE = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip


def magnitudes(name: str, bins: int, height: int, width: int, *, solarize: int = 255) -> Tensor:
    """Return the magnitudes of an operation in AutoAugment and RandAugment, (bins,) float32; 0 if it has none.

    For colour, contrast, brightness and sharpness, m means the factor 1 + m. Translations are in pixels.

    - solarize: the threshold of bin 0 (255 in torchvision, 256 in the first implementations).
    """
    if name == "Posterize":
        return _bits(bins, 4)
    if name == "Solarize":
        return torch.linspace(float(solarize), 0.0, bins)
    pixels = 150.0 / 331.0
    ends = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": pixels * width, "TranslateY": pixels * height, "Rotate": 30.0}
    factors = dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.9)
    return torch.linspace(0.0, (ends | factors).get(name, 0.0), bins)


def wide_magnitudes(name: str, bins: int) -> Tensor:
    """Return the magnitudes of an operation in TrivialAugment's wide space, (bins,) float32 (shifts up to 32 px)."""
    if name == "Posterize":
        return _bits(bins, 6)
    if name == "Solarize":
        return torch.linspace(255.0, 0.0, bins)
    ends = {"TranslateX": 32.0, "TranslateY": 32.0, "Rotate": 135.0}
    rest = dict.fromkeys(("ShearX", "ShearY", "Brightness", "Color", "Contrast", "Sharpness"), 0.99)
    return torch.linspace(0.0, (ends | rest).get(name, 0.0), bins)


def _bits(bins: int, dropped: int) -> Tensor:
    """Return the number of bits that posterising keeps, from 8 down by `dropped`."""
    return 8 - (torch.arange(bins) / ((bins - 1) / dropped)).round()
