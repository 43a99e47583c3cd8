"""Concept-balanced sampling: a probability for each image, by Algorithm 1 of the paper or fitted to all concepts.

One draw of Algorithm 1 chooses a kept concept k uniformly; then a label y that occurs with it, with probability q_k(y)
proportional to n[k, y]^-eta; then one of the n[k, y] images with both. Overall, an image is drawn with probability

    P(i) = 1 / |kept| * sum over the kept concepts k of image i of q_k(y_i) / n[k, y_i].

This only balances the labels of a concept within its own draws: images drawn for other concepts contribute their own
label distribution. `fitted` balances all concepts at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.methods.groups.cobalt.concept_statistics import label_masses, label_variation, presence
from robustlab.methods.groups.cobalt.fitted_draw import fit
from robustlab.methods.groups.cobalt.sampler_report import SamplerReport
from robustlab.methods.groups.cobalt.sampler_settings import SamplerSettings


def probabilities(
    concepts: Tensor,
    labels: Tensor,
    *,
    num_concepts: int,
    num_classes: int,
    settings: SamplerSettings,
    area: Tensor | None = None,
    codes: Tensor | None = None,
) -> SamplerReport:
    """Return the sampling probability of each image. Images without any concept are never drawn.

    - concepts: concept of each slot, (n, N) int in 0 .. num_concepts - 1, -1 if inactive; an image contains a concept
      once, no matter how many of its slots have it.
    - labels: (n,) int64.
    - area: area of each slot, (n, N) float, to find an image's largest slot; without it, the first active one is used.
    - codes: vectors of the concepts, (K, d) float, to find the nearest concept; without them, the most frequent concept
      is used.
    """
    there = presence(concepts, num_concepts)
    assert bool(there.any()), "no image has a concept"
    table = label_masses(there, labels, num_classes=num_classes)
    kept = _frequent(table, len(labels), settings)
    members = there & kept
    orphans = there.any(dim=1) & ~members.any(dim=1)
    substitutes = _nearest_kept(kept, table.sum(dim=1), codes)
    largest = _largest(concepts[orphans], None if area is None else area[orphans])
    members[orphans] = torch.nn.functional.one_hot(substitutes[largest], num_concepts).bool()
    if settings.eta is None:
        done = fit(members, labels, tolerance=settings.tolerance, rounds=settings.iterations)
        p = done.p
    else:
        done, p = None, _algorithm_1(members, labels, num_classes=num_classes, eta=settings.eta)
    bound = 1.0 if settings.max_ratio is None else settings.max_ratio / len(p)
    drawn = members.any(dim=1).double()
    final = capped(p, bound)
    return SamplerReport(
        eta=settings.eta,
        p=final,
        table=table.long(),
        kept=kept,
        adopted=int(orphans.sum()),
        variation_before=label_variation(drawn / drawn.sum(), members, labels, num_classes=num_classes),
        variation=label_variation(final, members, labels, num_classes=num_classes),
        fit=done,
        label_share=torch.zeros(num_classes, dtype=torch.float64).index_add_(0, labels, final),
        largest=float(final.max()) * len(final),
        bounded=int((p > bound * (1 + 1e-12)).sum()),
        effective_size=1 / float((final**2).sum()),
    )


def _frequent(table: Tensor, count: int, settings: SamplerSettings) -> Tensor:
    """Return the concepts that are neither too rare nor (if excluded) limited to a single class, (K,) bool.

    If none is left, the most frequent one is kept, which amounts to balancing classes.
    """
    images = table.sum(dim=1)
    frequent = (images > 0) & (images >= max(settings.rare_count, settings.rare_share * count))
    if settings.drop_single_class:
        frequent &= (table > 0).sum(dim=1) > 1
    return frequent if bool(frequent.any()) else torch.arange(len(images)) == images.argmax()


def _nearest_kept(kept: Tensor, images: Tensor, codes: Tensor | None) -> Tensor:
    """Return the nearest kept concept of each concept, (K,) int64; without codes, the most frequent one for all."""
    if codes is None:
        return torch.where(kept, images, -1).argmax().expand(len(kept))
    distances = torch.cdist(codes.double(), codes.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return torch.where(kept, distances, torch.inf).argmin(dim=1)


def _largest(concepts: Tensor, area: Tensor | None) -> Tensor:
    """Return the concept of each image's largest active slot, (m,) int64; the first of ties."""
    table = concepts.long()
    sizes = torch.ones(table.shape, dtype=torch.float64) if area is None else area.double()
    return table.gather(1, torch.where(table >= 0, sizes, -1.0).argmax(dim=1, keepdim=True)).flatten()


def _algorithm_1(members: Tensor, labels: Tensor, *, num_classes: int, eta: float) -> Tensor:
    """Return P in closed form, (n,) float64.

    - members: the kept concepts of each image, (n, K) bool.
    """
    table = label_masses(members, labels, num_classes=num_classes)
    weights = torch.where(table > 0, -eta * table.clamp(min=1).log(), -torch.inf)
    chosen = weights.softmax(dim=1).nan_to_num(nan=0.0)  # q_k(y); a concept without images has no labels
    each = chosen / table.clamp(min=1)
    p = torch.where(members, each.T[labels], 0.0).sum(dim=1)
    return p / p.sum()


def capped(p: Tensor, bound: float) -> Tensor:
    """Cap probabilities at `bound`, keeping the proportions of the others; zeros stay zero.

    If the bound is too low for that, all non-zero probabilities become equal.

    - p: (n,) float64, sum 1.
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
