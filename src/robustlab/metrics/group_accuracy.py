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
    """accuracy: float64 [G], NaN where a group has no sample. counts: int64 [G]."""

    accuracy: Tensor
    counts: Tensor

    @property
    def present(self) -> Tensor:
        """Which groups have a sample: bool [G]."""
        return self.counts > 0


def accuracy_by_group(correct: Tensor, groups: Tensor, *, num_groups: int) -> GroupAccuracies:
    """Return accuracy and count of each group. correct: [n]. groups: int64 [n] in 0..num_groups-1."""
    counts = torch.bincount(groups, minlength=num_groups)
    right = torch.zeros(num_groups, dtype=torch.float64).index_add(0, groups, correct.double())
    return GroupAccuracies(torch.where(counts > 0, right / counts.clamp(min=1), math.nan), counts)


def average(groups: GroupAccuracies) -> float:
    """Return the mean over samples."""
    return weighted_average(groups, groups.counts)


def weighted_average(groups: GroupAccuracies, weights: Tensor) -> float:
    """Return the mean over groups that have a sample, each with its weight [G]; NaN if these weights are all zero.

    With the counts of the training split this is the "adjusted" average accuracy of Waterbirds.
    """
    kept = weights.double()[groups.present]
    return float((groups.accuracy[groups.present] * kept).sum() / kept.sum())


def balanced_average(groups: GroupAccuracies) -> float:
    """Return the mean over groups that have a sample, all with one weight; of classes: the balanced accuracy."""
    return float(groups.accuracy[groups.present].mean())


def worst(groups: GroupAccuracies) -> int:
    """Return the group with the least accuracy among those that have a sample, whether or not it is a small one.

    Of equal groups it is the first.
    """
    return int(torch.where(groups.present, groups.accuracy, math.inf).argmin())


def inferred_accuracies(correct: Tensor, labels: Tensor, concepts: Tensor, *, num_classes: int) -> GroupAccuracies:
    """Return accuracy and count of the samples with concept k and label y, as group k * num_classes + y.

    correct: [n]. labels: int64 [n]. concepts: integers [n, N], the concepts that each sample contains, -1 for none. A
    sample counts once for every different concept that it contains, so groups overlap.
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
    """Return the least accuracy over inferred groups of `min_count` samples or more; None if there is no such group.

    Arguments are those of `inferred_accuracies` (CoBalT's selection by inferred groups).
    """
    groups = inferred_accuracies(correct, labels, concepts, num_classes=num_classes)
    large = groups.accuracy[groups.counts >= max(min_count, 1)]
    return float(large.min()) if len(large) else None
