"""Concept-balanced sampling: Algorithm 1 of the paper as one probability for each image.

One draw of Algorithm 1 chooses a concept k among those kept, all alike; then a label y that occurs with it, with
probability q_k(y), proportional to n[k, y]^-eta; then one of the n[k, y] images with both. In all, an image is drawn
with probability

    P(i) = 1 / |kept| * sum over the kept concepts k of image i of q_k(y_i) / n[k, y_i].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robustlab.methods.checks import at_least, choose
from robustlab.methods.cobalt.diagnostics import counts_by, presence


@dataclass(frozen=True)
class SamplerSettings:
    """How labels are weighted inside a concept, and what keeps the weights within reason.

    exponent: lambda of Algorithm 1, in one of two readings, see `eta`. parametrisation "class": a label of concept k is
    drawn with weight n[k, y]^-lambda; "image": each image of concept k has that weight.

    rare_count, rare_share: a concept with fewer images than the one, or than that share of all, is left out: each of
    its few images would make up a large part of all draws. An image without another concept brings that of its largest
    slot back. drop_single_class: leave out, too, concepts that come with one label alone. max_ratio: no image is drawn
    more than so many times as often as if all were drawn alike; null: no bound.
    """

    parametrisation: Literal["class", "image"] = "class"
    exponent: float = 0.0
    rare_count: int = 20
    rare_share: float = 0.002
    drop_single_class: bool = False
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        choose("sampler.parametrisation", self.parametrisation, ("class", "image"))
        at_least("sampler.rare_count", self.rare_count, 0)
        at_least("sampler.rare_share", self.rare_share, 0)
        if self.max_ratio is not None:
            at_least("sampler.max_ratio", self.max_ratio, 1)

    @property
    def eta(self) -> float:
        """The exponent in q_k(y) ~ n[k, y]^-eta: lambda for class weights, lambda - 1 for image weights.

        0 makes all labels of a concept equally likely; the larger, the more its rare labels are preferred.
        """
        return self.exponent if self.parametrisation == "class" else self.exponent - 1


@dataclass(frozen=True)
class SamplerReport:
    """Who is drawn how often.

    p: probability of each image in one draw, float64 [n], sum 1. table: n[k, y] of all concepts, int64 [K, C]. kept,
    reinstated (kept though left out at first): bool [K]. label_share: probability of each label in one draw, float64
    [C]. largest: of P(i) * n. effective_size: 1 / sum of P(i)^2, n where all images are drawn alike.
    """

    eta: float
    p: Tensor
    table: Tensor
    kept: Tensor
    reinstated: Tensor
    label_share: Tensor
    largest: float
    effective_size: float

    @property
    def dropped(self) -> list[int]:
        """The concepts that occur and are left out."""
        return _places(~self.kept & (self.table.sum(dim=1) > 0))

    def metrics(self) -> dict[str, float]:
        """Return the scalars to log."""
        return {
            "eta": self.eta,
            "concepts_kept": float(self.kept.sum()),
            "largest": self.largest,
            "effective_size": self.effective_size,
            "rarest_label": float(self.label_share.min()),
            "commonest_label": float(self.label_share.max()),
        }

    def record(self) -> dict[str, Any]:
        """Return everything but `p` as plain types."""
        return {
            "eta": self.eta,
            "kept": _places(self.kept),
            "dropped": self.dropped,
            "reinstated": _places(self.reinstated),
            "label_share": self.label_share.tolist(),
            "largest": self.largest,
            "effective_size": self.effective_size,
            "images_of_each_concept_and_label": self.table.tolist(),
        }


def probabilities(
    concepts: Tensor,
    labels: Tensor,
    *,
    num_concepts: int,
    num_classes: int,
    eta: float,
    settings: SamplerSettings,
    area: Tensor | None = None,
) -> SamplerReport:
    """Return how often each image is drawn.

    concepts: of each slot, int [n, N] in 0 .. num_concepts - 1, -1 where it is not active; an image contains a concept
    once, however many of its slots have it. labels: int64 [n]. area: of each slot, float [n, N], to tell an image's
    largest one; without it the first active one stands for that. Images without any concept are never drawn.
    """
    there = presence(concepts, num_concepts)
    assert bool(there.any()), "no image has a concept"
    table = counts_by(concepts, labels, num_concepts=num_concepts, num_values=num_classes)
    chosen = _frequent(table, len(labels), settings)
    kept = _with_orphans(chosen, there, concepts, area)
    share = _label_weights(table, eta) / table.clamp(min=1) / kept.sum()  # q_k(y) / n[k, y] / |kept|
    p = torch.where(there & kept, share.T[labels], 0.0).sum(dim=1)
    p = p / p.sum()
    if settings.max_ratio is not None:
        p = capped(p, settings.max_ratio / len(p))
    return SamplerReport(
        eta=eta,
        p=p,
        table=table,
        kept=kept,
        reinstated=kept & ~chosen,
        label_share=torch.zeros(num_classes, dtype=torch.float64).index_add_(0, labels, p),
        largest=float(p.max()) * len(p),
        effective_size=1 / float((p**2).sum()),
    )


def _places(flags: Tensor) -> list[int]:
    return flags.nonzero().flatten().tolist()


def _frequent(table: Tensor, count: int, settings: SamplerSettings) -> Tensor:
    """Return the concepts that are neither too rare nor, where that matters, of a single class: bool [K]."""
    images = table.sum(dim=1)
    frequent = (images > 0) & (images >= max(settings.rare_count, settings.rare_share * count))
    return frequent & ((table > 0).sum(dim=1) > 1) if settings.drop_single_class else frequent


def _with_orphans(kept: Tensor, there: Tensor, concepts: Tensor, area: Tensor | None) -> Tensor:
    """Return `kept` and the concept of the largest slot of every image that has no other: bool [K]."""
    orphans = there.any(dim=1) & ~(there & kept).any(dim=1)
    table = concepts[orphans].long()
    sizes = torch.ones(table.shape, dtype=torch.float64) if area is None else area[orphans].double()
    largest = torch.where(table >= 0, sizes, -1.0).argmax(dim=1, keepdim=True)  # of equal ones the first
    return kept.index_fill(0, table.gather(1, largest).flatten(), True)


def _label_weights(table: Tensor, eta: float) -> Tensor:
    """Return q_k(y), float64 [K, C] with rows that sum to 1; zero for a label that does not occur with the concept."""
    weights = torch.where(table > 0, -eta * table.clamp(min=1).double().log(), -torch.inf)
    return weights.softmax(dim=1).nan_to_num(nan=0.0)  # a concept of no image has no labels


def capped(p: Tensor, bound: float) -> Tensor:
    """Return probabilities of which none exceeds `bound`, the rest in the proportions they had; zeros stay.

    p: float64 [n], sum 1. Where the bound leaves no room for that, all that are not zero become equal.
    """
    drawn = p > 0
    if bound * int(drawn.sum()) <= 1 + 1e-9:
        return drawn / drawn.sum().double()
    full = torch.zeros_like(drawn)
    while bool((p > bound * (1 + 1e-12)).any()):
        full = full | (p >= bound)
        rest = torch.where(full, 0.0, p)
        p = torch.where(full, bound, rest * (1 - bound * int(full.sum())) / rest.sum())
    return p
