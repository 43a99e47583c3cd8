"""Draw attributes that agree with the class at a given rate, for synthetic data sets.

All draws are counter-based: they depend on the key and the image's index, but not on the number of images.
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
    """Return an attribute for each sample, (N,) int64: its class's attribute for exactly `share` of each class.

    The others get the remaining attributes in equal parts, rounded to whole samples.

    - labels: (N,) int64 in 0..num_attributes-1.
    - key, index: random key and counters, (N,) int64, which determine the samples that get each attribute.
    """
    check_share("correlation", share)
    order = torch.argsort(rng.uniform(key, index, 1)[:, 0], stable=True)
    attributes = torch.empty_like(labels)
    for label in range(num_attributes):
        members = order[labels[order] == label]
        count = len(members)
        agreeing = round(share * count)
        attributes[members[:agreeing]] = label
        # assign the other attributes cyclically, starting after the class's own, so that remainders are spread evenly
        turn = torch.arange(count - agreeing) % max(num_attributes - 1, 1)
        attributes[members[agreeing:]] = (label + 1 + turn) % num_attributes
    return attributes


def flipped(values: Tensor, probability: float, *, key: int, index: Tensor) -> Tensor:
    """Flip each of the binary `values`, (N,) int64, independently with the given probability."""
    return values ^ (rng.uniform(key, index, 1)[:, 0] < probability).long()


def check_share(name: str, value: float) -> None:
    """Raise ConfigError unless a share lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"dataset.source.{name} must lie in [0, 1], not {value}")
