"""What the concepts turned out to be: how many are in use, and, for analysis alone, what they have to do with labels.

Tables are int [n, N], the concept of each slot of each image, -1 where a slot is not active; results are float64. An
image contains a concept if one of its slots has it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustlab.methods.groups.cobalt.dictionary import perplexity


def presence(table: Tensor, num_concepts: int) -> Tensor:
    """Return which concepts each image contains: bool [n, K]."""
    found = torch.zeros((len(table), num_concepts + 1), dtype=torch.bool)
    found.scatter_(1, table.long() + 1, True)  # the first column collects the slots that are not active
    return found[:, 1:]


def usage(table: Tensor, num_concepts: int) -> Tensor:
    """Return each concept's share of the active slots: float64 [K], sum 1."""
    counts = torch.bincount(table[table >= 0].long(), minlength=num_concepts).double()
    return counts / counts.sum()


def counts_by(table: Tensor, values: Tensor, *, num_concepts: int, num_values: int) -> Tensor:
    """Return how many images with each value contain each concept, n[k, v]: int64 [K, num_values].

    values: int64 [n], e.g. labels: n[k, y]. An image counts once for each concept that it contains.
    """
    members = torch.nn.functional.one_hot(values.long(), num_values)
    return presence(table, num_concepts).long().T @ members


def label_masses(members: Tensor, labels: Tensor, *, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """Return the weight of each concept's images of each label: float64 [K, C]; their number without `weights`.

    members: the concepts of each image, bool [n, K]. labels: int64 [n]. weights: float64 [n].
    """
    by_label = torch.nn.functional.one_hot(labels.long(), num_classes).double()
    return members.double().T @ (by_label if weights is None else by_label * weights[:, None])


def label_variation(p: Tensor, members: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Return how well each concept tells the label: total variation of P(y | concept) from even, float64 [K].

    0 where all labels are alike within the concept, 1 - 1 / C where it comes with one alone; NaN for a concept that is
    never drawn. p: probability of each image, float64 [n]; members, labels: as in `label_masses`.
    """
    masses = label_masses(members, labels, num_classes=num_classes, weights=p)
    return (masses / masses.sum(dim=1, keepdim=True) - 1 / num_classes).abs().sum(dim=1) / 2


def rare_group_shares(p: Tensor, labels: Tensor, attributes: Tensor) -> dict[str, float]:
    """Return the share of rare groups among the images and among the draws, {} where no group is rare.

    A group is rare that has less than half of what it would have if the attributes that come with its label shared the
    label's images evenly. An oracle: it takes the attributes, int64 [n], so it is for reading only.
    """
    by_label = torch.nn.functional.one_hot(labels.long()).long().T @ torch.nn.functional.one_hot(attributes.long())
    even = by_label.sum(dim=1, keepdim=True) / (by_label > 0).sum(dim=1, keepdim=True).clamp(min=1)
    rare = (by_label < even / 2)[labels, attributes]
    if not bool(rare.any()):
        return {}
    return {"rare_groups_before": float(rare.double().mean()), "rare_groups": float(p[rare].sum())}


def attribute_contrast(table: Tensor, labels: Tensor, attributes: Tensor, *, num_concepts: int) -> Tensor:
    """Return how well each concept tells attributes apart within a label: float64 [K] in [0, 1].

    |P(k | y, a = 1) - P(k | y, a = 0)|, averaged over the labels that come with more than one attribute; of several
    attributes, the difference of the largest and the least. NaN where no label does.
    """
    there = presence(table, num_concepts).double()
    ranges = []
    for label in labels.unique():
        shares = [
            there[(labels == label) & (attributes == attribute)].mean(dim=0)
            for attribute in attributes[labels == label].unique()
        ]
        if len(shares) > 1:
            stacked = torch.stack(shares)
            ranges.append(stacked.amax(dim=0) - stacked.amin(dim=0))
    return torch.stack(ranges).mean(dim=0) if ranges else torch.full((num_concepts,), math.nan, dtype=torch.float64)


def attribute_purity_and_recall(
    table: Tensor, labels: Tensor, attributes: Tensor, *, num_concepts: int
) -> tuple[float, float]:
    """Return how the concept that tells attributes apart best stands for the one it comes with most: both in [0, 1].

    Recall is P(k | a). Purity is P(a | k) if attributes were equally likely: recall over the sum of P(k | a) over all
    attributes. Each P(k | a) is the mean of P(k | y, a) over the labels that come with more than one attribute, so that
    a concept of the label does not pass for one of the attribute. NaN where no label does.
    """
    there = presence(table, num_concepts).double()
    shares: dict[int, list[Tensor]] = {}
    for label in labels.unique():
        known = attributes[labels == label].unique().tolist()
        for attribute in known if len(known) > 1 else ():
            shares.setdefault(attribute, []).append(there[(labels == label) & (attributes == attribute)].mean(dim=0))
    if not shares:
        return math.nan, math.nan
    means = torch.stack([torch.stack(rows).mean(dim=0) for rows in shares.values()])
    best = means[:, int((means.amax(dim=0) - means.amin(dim=0)).argmax())]
    return float(best.max() / best.sum().clamp(min=1e-12)), float(best.max())


def normalised_information(table: Tensor, values: Tensor, *, num_concepts: int) -> float:
    """Return the normalised mutual information of concept and value, 2 I / (H(concept) + H(value)), in [0, 1].

    Every image has the same weight, shared evenly among the concepts that it contains. values: int64 [n].
    """
    there = presence(table, num_concepts).double()
    members = torch.nn.functional.one_hot(values.long()).double()
    joint = (there / there.sum(dim=1, keepdim=True)).T @ members / len(values)
    separate = (joint.sum(dim=1, keepdim=True), joint.sum(dim=0, keepdim=True))
    entropies = sum(float(torch.special.entr(one).sum()) for one in separate)
    information = entropies - float(torch.special.entr(joint).sum())
    return 2 * information / entropies if entropies > 0 else 0.0


def summary(
    table: Tensor, area: Tensor, labels: Tensor, *, num_concepts: int, attributes: Tensor | None = None
) -> dict[str, float]:
    """Return the diagnostics of a split as scalars to log.

    "concepts_used" (in one image at least), "perplexity", "largest_slot" (mean area of the slot that has most),
    "concepts_per_image", "nmi_label"; with attributes, too, "nmi_attribute" and, of the concept that has most,
    "attribute_contrast", and "attribute_purity" and "attribute_recall". area: float [n, N].
    """
    there = presence(table, num_concepts)
    found = {
        "concepts_used": float(there.any(dim=0).sum()),
        "perplexity": float(perplexity(usage(table, num_concepts))),
        "largest_slot": float(area.double().mean(dim=0).max()),
        "concepts_per_image": float(there.sum(dim=1).double().mean()),
        "nmi_label": normalised_information(table, labels, num_concepts=num_concepts),
    }
    if attributes is not None:
        found["nmi_attribute"] = normalised_information(table, attributes, num_concepts=num_concepts)
        contrast = attribute_contrast(table, labels, attributes, num_concepts=num_concepts)
        if not contrast.isnan().any():
            purity, recall = attribute_purity_and_recall(table, labels, attributes, num_concepts=num_concepts)
            found["attribute_contrast"] = float(contrast.max())
            found |= {"attribute_purity": purity, "attribute_recall": recall}
    return found
