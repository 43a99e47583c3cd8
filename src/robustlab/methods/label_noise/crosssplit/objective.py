"""Equations (8) and (9) of CrossSplit (Kim et al., ICML 2023), and NT-Xent of SimCLR (Chen et al. 2020).

Each takes logits or embeddings of any float type, works in float32 and returns a scalar. (7), MixUp, is
`robustlab.data.transforms.augment.mixup` with `at_least_half`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return Lx, the mean over rows of -sum_k Y_k log softmax(O)_k.

    - logits, targets: O and Y, (R, C) float.
    """
    return F.cross_entropy(logits.float(), targets)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Return Lu, the mean over rows and classes of (softmax(O) - Y)^2 (averaging over classes follows MixMatch).

    - logits, targets: O and Y, (R, C) float.
    """
    return F.mse_loss(logits.float().softmax(dim=1), targets)


def uniform_prior(logits: Tensor) -> Tensor:
    """Return Lp = sum_k (1/C) ln((1/C) / pbar_k), where pbar is the mean of softmax(O) over rows.

    The mean is computed in log space, so a class that is never predicted gives a large but finite value.

    - logits: O, (R, C) float.
    """
    rows, classes = logits.shape
    log_mean = torch.logsumexp(F.log_softmax(logits.float(), dim=1), dim=0) - math.log(rows)
    return -math.log(classes) - log_mean.mean()


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Return Lc, the normalised temperature-scaled cross-entropy with the same image's other view as positive.

    The denominator runs over the 2U - 1 other rows.

    - first, second: projections of two views, (U, D) float, not yet normalised.
    """
    embeddings = F.normalize(torch.cat([first, second]).float(), dim=1)
    similarity = embeddings @ embeddings.T / temperature
    rows = len(embeddings)
    similarity = similarity.masked_fill(torch.eye(rows, dtype=torch.bool, device=similarity.device), -math.inf)
    positive = torch.arange(rows, device=similarity.device).roll(rows // 2)
    return F.cross_entropy(similarity, positive)


def negative_entropy(logits: Tensor) -> Tensor:
    """Return the mean over rows of sum_k p_k ln p_k; adding it to a loss penalises confidence.

    - logits: (R, C) float.
    """
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    return (log_probabilities.exp() * log_probabilities).sum(dim=1).mean()


def warmup_loss(logits: Tensor, labels: Tensor, *, entropy_weight: float) -> Tensor:
    """Return equation (9): cross-entropy plus weighted negative entropy.

    - logits: (B, C) float.
    - labels: (B,) int64.
    """
    loss = F.cross_entropy(logits.float(), labels)
    return loss if entropy_weight == 0 else loss + entropy_weight * negative_entropy(logits)
