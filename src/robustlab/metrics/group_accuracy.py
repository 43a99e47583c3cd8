"""Accuracies of groups of samples: functions of tensors, on the CPU, in float64.

A group is a class y together with an attribute a: g = y * num_attributes + a. `correct` is the share of predictions on
a sample that were right: 0 or 1, or something between where several processes evaluated it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def group_of(labels: Tensor, attributes: Tensor, *, num_attributes: int) -> Tensor:
    """Return the group g of each sample, int64 of the shape of `labels`."""
    return labels * num_attributes + attributes


def class_and_attribute(groups: Tensor, *, num_attributes: int) -> tuple[Tensor, Tensor]:
    """Return class y and attribute a of groups: the inverse of `group_of`."""
    return groups.div(num_attributes, rounding_mode="floor"), groups.remainder(num_attributes)


@dataclass(frozen=True)
class GroupAccuracies:
    """Accuracies of G groups.

    - accuracy: (G,) float64, NaN for groups without samples.
    - counts: (G,) int64.
    """

    accuracy: Tensor
    counts: Tensor

    @property
    def present(self) -> Tensor:
        """Which groups have samples, (G,) bool."""
        return self.counts > 0


def accuracy_by_group(correct: Tensor, groups: Tensor, *, num_groups: int) -> GroupAccuracies:
    """Return accuracy and count of each group.

    - correct: (n,).
    - groups: (n,) int64 in 0..num_groups-1.
    """
    counts = torch.bincount(groups, minlength=num_groups)
    right = torch.zeros(num_groups, dtype=torch.float64).index_add(0, groups, correct.double())
    return GroupAccuracies(torch.where(counts > 0, right / counts.clamp(min=1), math.nan), counts)


def average(groups: GroupAccuracies) -> float:
    """Return the mean over samples."""
    return weighted_average(groups, groups.counts)


def weighted_average(groups: GroupAccuracies, weights: Tensor) -> float:
    """Return the mean over groups with samples, weighted by `weights`, (G,); NaN if their weights are all zero.

    With the counts of the training split this is the "adjusted" average accuracy of Waterbirds.
    """
    kept = weights.double()[groups.present]
    return float((groups.accuracy[groups.present] * kept).sum() / kept.sum())


def balanced_average(groups: GroupAccuracies) -> float:
    """Return the unweighted mean over groups with samples; for classes, the balanced accuracy."""
    return float(groups.accuracy[groups.present].mean())


def worst(groups: GroupAccuracies) -> int:
    """Return the group with the lowest accuracy among groups with samples, however small; the first of ties."""
    return int(torch.where(groups.present, groups.accuracy, math.inf).argmin())


def inferred_accuracies(correct: Tensor, labels: Tensor, concepts: Tensor, *, num_classes: int) -> GroupAccuracies:
    """Return accuracy and count of the samples with concept k and label y, as group k * num_classes + y.

    A sample counts once for every different concept that it contains, so groups overlap.

    - correct: (n,).
    - labels: (n,) int64.
    - concepts: the concepts that each sample contains, (n, N) integers, padded with -1.
    """
    num_concepts = max(int(concepts.max()) + 1, 0) if concepts.numel() else 0
    contains = torch.zeros(len(labels), num_concepts + 1, dtype=torch.bool)
    contains.scatter_(1, concepts.to(torch.int64) + 1, True)
    sample, concept = contains[:, 1:].nonzero(as_tuple=True)
    groups = concept * num_classes + labels[sample]
    return accuracy_by_group(correct[sample], groups, num_groups=num_concepts * num_classes)


def inferred_worst(
    correct: Tensor, labels: Tensor, concepts: Tensor, *, num_classes: int, min_count: int = 1
) -> float | None:
    """Return the lowest accuracy over inferred groups with at least `min_count` samples; None if there are none.

    Used by CoBalT's selection by inferred groups. The other arguments are as in `inferred_accuracies`.
    """
    groups = inferred_accuracies(correct, labels, concepts, num_classes=num_classes)
    large = groups.accuracy[groups.counts >= max(min_count, 1)]
    return float(large.min()) if len(large) else None
