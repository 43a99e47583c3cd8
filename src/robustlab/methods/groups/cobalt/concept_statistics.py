"""Measure concepts: how many are in use and, for analysis only, how they relate to labels and attributes.

A `table` is (n, N) int, the concept of each slot of each image, -1 for inactive slots. Results are float64. An image
contains a concept if one of its slots has it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustlab.methods.groups.cobalt.dictionary import perplexity


def presence(table: Tensor, num_concepts: int) -> Tensor:
    """Return which concepts each image contains, (n, K) bool."""
    found = torch.zeros((len(table), num_concepts + 1), dtype=torch.bool)
    found.scatter_(1, table.long() + 1, True)  # the first column collects the inactive slots
    return found[:, 1:]


def usage(table: Tensor, num_concepts: int) -> Tensor:
    """Return each concept's share of the active slots, (K,) float64, sum 1."""
    counts = torch.bincount(table[table >= 0].long(), minlength=num_concepts).double()
    return counts / counts.sum()


def counts_by(table: Tensor, values: Tensor, *, num_concepts: int, num_values: int) -> Tensor:
    """Return n[k, v], the number of images with value v that contain concept k, (K, num_values) int64.

    - values: (n,) int64, e.g. labels.
    """
    members = torch.nn.functional.one_hot(values.long(), num_values)
    return presence(table, num_concepts).long().T @ members


def label_masses(members: Tensor, labels: Tensor, *, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """Return the total weight of the images with each concept and label, (K, C) float64.

    - members: the concepts of each image, (n, K) bool.
    - labels: (n,) int64.
    - weights: (n,) float64; default: all one.
    """
    by_label = torch.nn.functional.one_hot(labels.long(), num_classes).double()
    return members.double().T @ (by_label if weights is None else by_label * weights[:, None])


def label_variation(p: Tensor, members: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Return how well each concept predicts the label: total variation of P(y | concept) from uniform, (K,) float64.

    0 if all labels are equally likely within the concept, 1 - 1 / C if it occurs with a single label, NaN for a concept
    that is never drawn.

    - p: probability of each image, (n,) float64.
    - members, labels: as in `label_masses`.
    """
    masses = label_masses(members, labels, num_classes=num_classes, weights=p)
    return (masses / masses.sum(dim=1, keepdim=True) - 1 / num_classes).abs().sum(dim=1) / 2


def rare_group_shares(p: Tensor, labels: Tensor, attributes: Tensor) -> dict[str, float]:
    """Return the share of rare groups among the images and among the draws; {} if no group is rare.

    A group is rare if it has less than half of its images under an even split of its label's images over the attributes
    that occur with that label. An oracle for reporting only, since it uses attributes.

    - p: probability of each image, (n,) float64.
    - labels, attributes: (n,) int64.
    """
    by_label = torch.nn.functional.one_hot(labels.long()).long().T @ torch.nn.functional.one_hot(attributes.long())
    even = by_label.sum(dim=1, keepdim=True) / (by_label > 0).sum(dim=1, keepdim=True).clamp(min=1)
    rare = (by_label < even / 2)[labels, attributes]
    if not bool(rare.any()):
        return {}
    return {"rare_groups_before": float(rare.double().mean()), "rare_groups": float(p[rare].sum())}


def attribute_contrast(table: Tensor, labels: Tensor, attributes: Tensor, *, num_concepts: int) -> Tensor:
    """Return how well each concept separates attributes within a label, (K,) float64 in [0, 1].

    |P(k | y, a = 1) - P(k | y, a = 0)|, averaged over the labels that occur with more than one attribute; with more
    than two attributes, the largest minus the smallest. NaN if no label does.
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
    """Return purity and recall, both in [0, 1], of the best-separating concept for the attribute it occurs with most.

    Recall is P(k | a). Purity is P(a | k) for equally likely attributes: recall over the sum of P(k | a) over all
    attributes. Each P(k | a) is the mean of P(k | y, a) over the labels that occur with more than one attribute, so
    that a concept of the label is not mistaken for a concept of the attribute. NaN if no label does.
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

    Every image has the same weight, shared evenly between the concepts that it contains.

    - values: (n,) int64.
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

    "concepts_used" (in at least one image), "perplexity", "largest_slot" (mean area of each image's largest slot),
    "concepts_per_image", "nmi_label"; with attributes also "nmi_attribute", "attribute_contrast" (the largest of all
    concepts), "attribute_purity" and "attribute_recall".

    - area: (n, N) float.
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
