"""Choose samples of the training split: a class-balanced subset and a stratified validation share."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError

_SEED = 0  # constant, so that every seed of a setting uses the same subset


def _rank_in_class(labels: Tensor, purpose: str) -> Tensor:
    """Return each sample's position within its class in a random order, (N,) int64."""
    draw = rng.permutation(rng.fold(_SEED, purpose), len(labels))
    order = draw[torch.argsort(labels[draw], stable=True)]  # by class, random within
    counts = torch.bincount(labels)
    place = torch.arange(len(labels)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return torch.empty_like(place).index_copy_(0, order, place)


def balanced_subset(labels: Tensor, count: int | None, *, num_classes: int) -> Tensor:
    """Return `count` sorted positions with class sizes that differ by at most one.

    A class too small for its share is used completely, and the others make up for it. A larger subset contains every
    smaller one.

    - labels: (N,) int64.
    - count: size of the subset; None for all positions.

    Raises ConfigError if `count` is out of range.
    """
    if count is None:
        return torch.arange(len(labels))
    if not num_classes <= count <= len(labels):
        raise ConfigError(
            f"dataset.subset={count} must lie between the number of classes, {num_classes}, and the number of training "
            f"samples, {len(labels)}"
        )
    rank = _rank_in_class(labels, "subset")
    return torch.argsort(rank * num_classes + labels, stable=True)[:count].sort().values


def stratified_share(labels: Tensor, fraction: float) -> Tensor:
    """Return which samples to hold out, (N,) bool: a `fraction` of each class, rounded."""
    rank = _rank_in_class(labels, "validation")
    held_out = rank < (torch.bincount(labels)[labels].double() * fraction).round()
    if bool(held_out.all()):
        raise ConfigError(f"dataset.val_fraction={fraction} leaves nothing to train on; lower it")
    return held_out
