"""Equations (1) to (6) of CrossSplit (Kim et al., ICML 2023): from a peer's predictions to training targets.

Everything is a function of probabilities and labels, without networks or gradients, in float32 or wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LN2 = math.log(2.0)


def soft_label(probabilities: Tensor, labels: Tensor, beta: Tensor) -> Tensor:
    """Return equation (1), beta * p + (1 - beta) * one-hot(y), (B, C) float.

    - probabilities: p, the peer's, (B, C) float.
    - labels: y, (B,) int64.
    - beta: (B,) float.
    """
    soft = beta[:, None] * probabilities
    return soft.scatter_add(1, labels[:, None], (1 - beta)[:, None])


def mixing_weight(divergence: Tensor, gamma: float) -> Tensor:
    """Return equation (2), beta = gamma * (JSDn - 1/2) + 1/2, in [1/2 - gamma/2, 1/2 + gamma/2] for JSDn in [0, 1]."""
    return gamma * (divergence - 0.5) + 0.5


def jensen_shannon(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return equation (3), the Jensen-Shannon divergence of one-hot labels and predictions, (B,) float in [0, ln 2].

    Against a one-hot label it depends only on q, the probability of that label: ln 2 + (q ln q - (1+q) ln(1+q)) / 2.

    - probabilities: (B, C) float.
    - labels: (B,) int64.
    """
    q = probabilities.gather(1, labels[:, None]).squeeze(1)
    return (LN2 + 0.5 * (torch.xlogy(q, q) - torch.xlogy(1 + q, 1 + q))).clamp(0.0, LN2)


@dataclass(frozen=True)
class ClassExtrema:
    """Equation (5): minimum and maximum divergence over the samples assigned to each class, (C,) float each.

    A class without samples has (inf, -inf).
    """

    low: Tensor
    high: Tensor

    @classmethod
    def empty(cls, num_classes: int, device: torch.device | str = "cpu") -> ClassExtrema:
        """Return the extrema of an empty set of samples."""
        full = torch.full((num_classes,), math.inf, device=device)
        return cls(full, -full)

    def update(self, divergence: Tensor, labels: Tensor) -> ClassExtrema:
        """Return the extrema updated by more samples.

        - divergence: (B,) float.
        - labels: (B,) int64.
        """
        return ClassExtrema(
            self.low.scatter_reduce(0, labels, divergence, "amin"),
            self.high.scatter_reduce(0, labels, divergence, "amax"),
        )


def normalise(divergence: Tensor, labels: Tensor, extrema: ClassExtrema, eps: float = 1e-8) -> Tensor:
    """Return equation (4), JSDn = clip((JSD - Jmin[y]) / (Jmax[y] - Jmin[y]), 0, 1), (B,) float.

    1/2 (undecided) if a class's range is below `eps` or the class had no samples, where the ratio is meaningless.
    """
    low = extrema.low[labels]
    span = extrema.high[labels] - low
    return torch.where(span < eps, 0.5, ((divergence - low) / span).clamp(0.0, 1.0))


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Return equation (6), v_k^(1/T) / sum_j v_j^(1/T), (B, C) float, dividing by the maximum first for stability."""
    powered = (probabilities / probabilities.amax(dim=1, keepdim=True)).pow(1.0 / temperature)
    return powered / powered.sum(dim=1, keepdim=True)


def mean_probabilities(*logits: Tensor) -> Tensor:
    """Return the mean over views of the float32 softmax, (B, C), from the logits of each view, (B, C)."""
    return torch.stack([view.float().softmax(dim=1) for view in logits]).mean(dim=0)


@dataclass(frozen=True)
class Correction:
    """The correction of a labelled batch: targets, (B, C) float, divergence JSDn and beta, (B,) float."""

    targets: Tensor
    divergence: Tensor
    beta: Tensor


@torch.no_grad()
def correct(
    probabilities: Tensor,
    labels: Tensor,
    extrema: ClassExtrema | None,
    *,
    gamma: float,
    temperature: float,
    hard: bool = False,
    eps: float = 1e-8,
) -> Correction:
    """Correct the labels of a batch with the peer's predictions: equations (3), (4), (2), (1), (6) in this order.

    - probabilities: the peer's mean over the weak views, (B, C) float.
    - labels: (B,) int64.
    - extrema: extrema of this turn; None divides by ln 2 instead (ablation without class-wise normalisation).
    - hard: use the one-hot corrected label (ablation).
    """
    raw = jensen_shannon(probabilities, labels)
    divergence = raw / LN2 if extrema is None else normalise(raw, labels, extrema, eps)
    beta = mixing_weight(divergence, gamma)
    targets = sharpen(soft_label(probabilities, labels, beta), temperature)
    if hard:
        targets = torch.zeros_like(targets).scatter(1, targets.argmax(dim=1, keepdim=True), 1.0)
    return Correction(targets, divergence, beta)


@torch.no_grad()
def guess(*logits: Tensor, temperature: float) -> Tensor:
    """Return the targets g of unlabelled samples, equation (6): sharpened mean over views (and networks), (U, C)."""
    return sharpen(mean_probabilities(*logits), temperature)
