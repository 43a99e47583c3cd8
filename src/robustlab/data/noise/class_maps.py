"""Class maps of asymmetric noise for CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import torch
from torch import Tensor

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FLIPS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
"""truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog; the other five classes stay."""

CIFAR100_SUPERCLASSES = {
    "aquatic mammals": (4, 30, 55, 72, 95),
    "fish": (1, 32, 67, 73, 91),
    "flowers": (54, 62, 70, 82, 92),
    "food containers": (9, 10, 16, 28, 61),
    "fruit and vegetables": (0, 51, 53, 57, 83),
    "household electrical devices": (22, 39, 40, 86, 87),
    "household furniture": (5, 20, 25, 84, 94),
    "insects": (6, 7, 14, 18, 24),
    "large carnivores": (3, 42, 43, 88, 97),
    "large man-made outdoor things": (12, 17, 37, 68, 76),
    "large natural outdoor scenes": (23, 33, 49, 60, 71),
    "large omnivores and herbivores": (15, 19, 21, 31, 38),
    "medium-sized mammals": (34, 63, 64, 66, 75),
    "non-insect invertebrates": (26, 45, 77, 79, 99),
    "people": (2, 11, 35, 46, 98),
    "reptiles": (27, 29, 44, 78, 93),
    "small mammals": (36, 50, 65, 74, 80),
    "trees": (47, 52, 56, 59, 96),
    "vehicles 1": (8, 13, 48, 58, 90),
    "vehicles 2": (41, 69, 81, 85, 89),
}
"""Members of each superclass by fine index, in the order of the data set's coarse labels (Krizhevsky 2009)."""


def superclass_successor() -> Tensor:
    """Return the next larger fine index in the same superclass, wrapping around, (100,) int64."""
    successor = torch.empty(100, dtype=torch.int64)
    for members in CIFAR100_SUPERCLASSES.values():
        successor[list(members)] = torch.tensor([*members[1:], members[0]])
    return successor


def consecutive_successor() -> Tensor:
    """Return the next class in the same block of five fine indices, wrapping around, (100,) int64."""
    index = torch.arange(100)
    return index // 5 * 5 + (index + 1) % 5
