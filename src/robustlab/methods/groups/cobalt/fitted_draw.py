"""Draws under which no concept gives the label away: iterative proportional fitting.

Wanted are probabilities P(i) of drawing each image such that P(y | image has concept k) is uniform over labels for all
concepts k at once, and P(y) is uniform, too. Among all solutions, iterative proportional fitting (Deming and Stephan
1940) finds the one closest to uniform draws in Kullback-Leibler divergence (Csiszar 1975). It satisfies one condition
after the other, each time with the smallest possible change, which is one factor per label for the images of a concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNDRAWN = 0.01
"""An image that is drawn less than this share as often as in uniform draws counts as one that is never drawn."""


@dataclass(frozen=True)
class Fit:
    """What was fitted.

    p: probability of each image in one draw, float64 [n], sum 1. one_label: concepts of a single label, which no draws
    can balance. conflicting: concepts left out because balancing them together with the others would mean that some
    images are never drawn, or takes more than the given number of rounds. iterations: rounds of the last fit.
    """

    p: Tensor
    one_label: tuple[int, ...]
    conflicting: tuple[int, ...]
    iterations: int

    @property
    def left_out(self) -> tuple[int, ...]:
        """The concepts whose labels are not even under these draws."""
        return tuple(sorted(self.one_label + self.conflicting))

    def record(self) -> dict[str, Any]:
        """Return everything but `p` as plain types."""
        return {name: value for name, value in asdict(self).items() if name != "p"}


@dataclass(frozen=True)
class _Condition:
    """The labels of some cells have to be equally likely.

    concept: None for the balance of classes, which concerns all cells. cells: int64 [m]. labels: of these cells, in
    0 .. count - 1, int64 [m]. count: labels that occur.
    """

    concept: int | None
    cells: np.ndarray
    labels: np.ndarray
    count: int


def fit(members: Tensor, labels: Tensor, *, tolerance: float, rounds: int) -> Fit:
    """Return draws under which the labels that occur with a concept are equally likely, for all concepts.

    members: the concepts of each image, bool [n, K]; images without any are not drawn. labels: int64 [n]. tolerance:
    largest total variation of a concept's labels from uniform in the last round, at the concept's turn; the turns of
    later concepts can move it a little above. If the rounds do not suffice, or images are no longer drawn
    (`UNDRAWN`), the concept furthest from uniform is left out and the rest is fitted again; this terminates because
    each time there is one concept fewer.
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
    """Return a condition for each concept and, last, that of the classes; and the concepts of a single label.

    present: concepts of each cell, bool [c, K]; labels: int64 [c].
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
    """Return the masses of cells, float64 [c], the rounds done, and the concept furthest from uniform, None if it fits.

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
