"""Digits that have groups: a parity that agrees with the label most of the time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.data.noise.transitions import Symmetric
from robustlab.data.run_data import Data
from robustlab.data.sources.digits import Digits
from robustlab.data.transforms.augment import PadCrop
from tests.data.grouped_source import Grouped, WithValidation


def parity(name: str, labels: Tensor) -> Tensor:
    """The label's own parity for six samples of seven, the other one for the rest."""
    return (labels + (torch.arange(len(labels)) % 7 == 6)) % 2


def permuted_parity(name: str, labels: Tensor) -> Tensor:
    """The same attributes, each given to some other sample."""
    return parity(name, labels)[rng.permutation(rng.fold(0, "attributes", name), len(labels))]


def grouped_digits(*, subset: int = 120, permuted: bool = False, **options: Any) -> Data:
    """Noisily labelled digits with attributes and a validation split of their own; `options` go to `Data`."""
    return Data(
        Grouped(WithValidation(Digits()), permuted_parity if permuted else parity, names=("even", "odd")),
        seed=0,
        noise=Symmetric(rate=0.5),
        noise_name="symmetric",
        subset=subset,
        views={"weak": [PadCrop(1)], "strong": [PadCrop(2)]},
        **options,
    )
