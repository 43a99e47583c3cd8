"""Fit sampling probabilities under which no concept predicts the label, by iterative proportional fitting.

The goal is a probability P(i) for each image such that P(y | image has concept k) is uniform over labels for all
concepts k at once, and P(y) is uniform as well. Among all solutions, iterative proportional fitting (Deming and Stephan
1940) finds the one closest to uniform sampling in Kullback-Leibler divergence (Csiszar 1975). It satisfies one
condition after the other, each with the smallest possible change: one factor per label for the images of a concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNDRAWN = 0.01
"""An image counts as never drawn if its probability is below this fraction of uniform sampling."""


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    - p: probability of each image in one draw, (n,) float64, sum 1.
    - one_label: concepts that occur with a single label, which no sampling can balance.
    - conflicting: concepts dropped because balancing them together with the others would leave some images never drawn,
      or would take more than the given number of rounds.
    - iterations: number of rounds of the last fit.
    """

    p: Tensor
    one_label: tuple[int, ...]
    conflicting: tuple[int, ...]
    iterations: int

    @property
    def left_out(self) -> tuple[int, ...]:
        """The concepts whose labels are not balanced under these probabilities."""
        return tuple(sorted(self.one_label + self.conflicting))

    def record(self) -> dict[str, Any]:
        """Return everything but `p` as plain types."""
        return {name: value for name, value in asdict(self).items() if name != "p"}


@dataclass(frozen=True)
class _Condition:
    """The condition that the labels of some cells are equally likely.

    - concept: None for the balance of classes, which covers all cells.
    - cells: (m,) int64.
    - labels: labels of these cells, (m,) int64 in 0 .. count - 1.
    - count: number of labels that occur.
    """

    concept: int | None
    cells: np.ndarray
    labels: np.ndarray
    count: int


def fit(members: Tensor, labels: Tensor, *, tolerance: float, rounds: int) -> Fit:
    """Fit probabilities under which, for every concept, the labels that occur with it are equally likely.

    If the rounds do not suffice, or some images end up never drawn (`UNDRAWN`), the concept furthest from uniform is
    dropped and the rest is fitted again.

    - members: the concepts of each image, (n, K) bool; images without any concept are not drawn.
    - labels: (n,) int64.
    - tolerance: maximum total variation of a concept's labels from uniform at the concept's turn in the last round;
      later turns may push it slightly above.
    - rounds: maximum number of rounds of one fit.
    """
    rows, place, sizes = torch.unique(
        torch.cat([members.long(), labels[:, None]], dim=1), dim=0, return_inverse=True, return_counts=True
    )
    start = torch.where(rows[:, :-1].any(dim=1), sizes, 0).double().numpy()
    conditions, one_label = _conditions(rows[:, :-1].bool().numpy(), rows[:, -1].numpy())
    conflicting: list[int] = []
    while True:
        mass, done, worst = _project(start, conditions, tolerance=tolerance, rounds=rounds)
        if worst is None:
            break
        conflicting.append(worst)
        conditions = [one for one in conditions if one.concept != worst]
    each = torch.from_numpy(mass / sizes.numpy())[place]
    return Fit(each / each.sum(), tuple(one_label), tuple(sorted(conflicting)), done)


def _conditions(present: np.ndarray, labels: np.ndarray) -> tuple[list[_Condition], list[int]]:
    """Return one condition per concept followed by the condition on classes, and the concepts with a single label.

    - present: concepts of each cell, (c, K) bool.
    - labels: (c,) int64.
    """
    found, one_label = [], []
    for concept, column in [*enumerate(present.T), (None, present.any(axis=1))]:
        cells = np.flatnonzero(column)
        occurring, codes = np.unique(labels[cells], return_inverse=True)
        if concept is not None and len(occurring) == 1:
            one_label.append(concept)
        elif len(occurring) > 1:
            found.append(_Condition(concept, cells, codes, len(occurring)))
    return found, one_label


def _project(
    start: np.ndarray, conditions: Sequence[_Condition], *, tolerance: float, rounds: int
) -> tuple[np.ndarray, int, int | None]:
    """Return the masses of cells, (c,) float64, the number of rounds, and the worst concept (None after success).

    Each round projects the masses onto one condition after the other. The projection onto uniform P(y | k) gives every
    label within k the geometric mean of the labels' masses, up to a common factor that keeps the sum at 1.
    """
    uniform = start / start.sum()
    mass, worst = uniform.copy(), None
    for done in range(1, rounds + 1):
        furthest, worst = 0.0, None
        for one in conditions:
            sums = np.bincount(one.labels, mass[one.cells], minlength=one.count)
            variation = float(np.abs(sums / sums.sum() - 1 / one.count).sum()) / 2
            if variation > furthest and one.concept is not None:
                worst = one.concept
            furthest = max(furthest, variation)
            mass[one.cells] *= (np.exp(np.log(sums).mean()) / sums)[one.labels]
        mass /= mass.sum()
        if furthest <= tolerance:
            return mass, done, None
        if (mass < UNDRAWN * uniform).any():
            return mass, done, worst
    return mass, rounds, worst
