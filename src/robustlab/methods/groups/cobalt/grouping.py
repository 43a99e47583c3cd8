"""Group the positions of an image into slots and pool the slots' vectors (equations 7 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """A batch of images partitioned into slots.

    - logits: cosines between slots and features, (B, N, h, w) float32 in [-1, 1].
    - vectors: slot vectors, (B, N, d) float32.
    """

    logits: Tensor
    vectors: Tensor


def assignment_logits(features: Tensor, slots: Tensor) -> Tensor:
    """Return l[b, n, u, v] = cos(s[n], z[b, :, u, v]), (B, N, h, w) float32.

    - features: z, (B, d, h, w).
    - slots: s, (N, d).
    """
    return torch.einsum("nd,bdhw->bnhw", F.normalize(slots.float(), dim=1), F.normalize(features.float(), dim=1))


def attention(logits: Tensor, temperature: float) -> Tensor:
    """Return A, the softmax over slots at each position, (B, N, h, w) float32, equation 7."""
    return (logits / temperature).softmax(dim=1)


def pool(features: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return the slot vectors, (B, N, d) float32: attention-weighted means of un-normalised features, equation 8.

    The weights A / sum A are computed in log space, so that they sum to 1 even for a slot with hardly any attention.
    """
    weights = (logits / temperature).log_softmax(dim=1).flatten(2).softmax(dim=2)
    return weights @ features.float().flatten(2).transpose(1, 2)


def group(features: Tensor, slots: Tensor, temperature: float) -> Groups:
    """Return the slots of each image, computed in float32.

    - features: (B, d, h, w) float.
    - slots: (N, d) float.
    """
    logits = assignment_logits(features, slots)
    return Groups(logits, pool(features, logits, temperature))


def winners(logits: Tensor) -> Tensor:
    """Return the slot with the highest attention at each position, (B, h, w) int64."""
    return logits.argmax(dim=1)


def places(logits: Tensor) -> Tensor:
    """Return the number of positions that each slot wins, (B, N) int64."""
    slots = torch.arange(logits.shape[1], device=logits.device)
    return (winners(logits)[:, None] == slots[:, None, None]).sum(dim=(2, 3))


def active(logits: Tensor) -> Tensor:
    """Return which slots win at least one position, (B, N) bool."""
    return places(logits) > 0
