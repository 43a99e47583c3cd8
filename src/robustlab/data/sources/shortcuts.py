"""Drawing attributes that agree with the class as often as asked for; shared by the data sets that are made here.

All draws are counter-based: what an image gets depends on the key and on the image's number, not on how many others
there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError


def shuffled(key: int, count: int) -> Tensor:
    """Return a permutation of 0..count-1, int64."""
    return torch.argsort(rng.uniform(key, torch.arange(count), 1)[:, 0], stable=True)


def aligned(labels: Tensor, share: float, *, num_attributes: int, key: int, index: Tensor) -> Tensor:
    """Return an attribute for each sample, int64 [N]: that of its class for exactly this share of each class.

    labels: int64 [N] in 0..num_attributes-1. The others get the remaining attributes in equal parts. The numbers are
    rounded to whole samples; `key` and `index` (int64 [N]) choose which samples get which.
    """
    check_share("correlation", share)
    order = torch.argsort(rng.uniform(key, index, 1)[:, 0], stable=True)
    attributes = torch.empty_like(labels)
    for label in range(num_attributes):
        members = order[labels[order] == label]
        count = len(members)
        agreeing = round(share * count)
        attributes[members[:agreeing]] = label
        # the others in turn, from the next one on: which of them are one ahead differs from class to class
        turn = torch.arange(count - agreeing) % max(num_attributes - 1, 1)
        attributes[members[agreeing:]] = (label + 1 + turn) % num_attributes
    return attributes


def flipped(values: Tensor, probability: float, *, key: int, index: Tensor) -> Tensor:
    """Return 0 or 1 for each sample: the other value with this probability, independently (values: int64 [N])."""
    return values ^ (rng.uniform(key, index, 1)[:, 0] < probability).long()


def check_share(name: str, value: float) -> None:
    """Raise ConfigError unless a share lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"dataset.source.{name} must lie in [0, 1], not {value}")
