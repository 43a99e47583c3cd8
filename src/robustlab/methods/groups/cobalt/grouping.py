"""Grouping: which slot each place of an image belongs to, and what the slots are made of (equations 7 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """A batch of images cut into slots.

    logits: cosines of slots and features, float32 [B, N, h, w] in [-1, 1]. vectors: of the slots, float32 [B, N, d].
    """

    logits: Tensor
    vectors: Tensor


def assignment_logits(features: Tensor, slots: Tensor) -> Tensor:
    """Return l[b, n, u, v] = cos(s[n], z[b, :, u, v]), float32 [B, N, h, w]. features: [B, d, h, w]; slots: [N, d]."""
    return torch.einsum("nd,bdhw->bnhw", F.normalize(slots.float(), dim=1), F.normalize(features.float(), dim=1))


def attention(logits: Tensor, temperature: float) -> Tensor:
    """Return A, the softmax over slots at each place: float32 [B, N, h, w], equation 7."""
    return (logits / temperature).softmax(dim=1)


def pool(features: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return the slot vectors float32 [B, N, d]: means of un-normalised features weighted by attention, equation 8.

    The weights A / sum A are computed among logarithms: they sum to 1 for a slot with hardly any attention, too.
    """
    weights = (logits / temperature).log_softmax(dim=1).flatten(2).softmax(dim=2)
    return weights @ features.float().flatten(2).transpose(1, 2)


def group(features: Tensor, slots: Tensor, temperature: float) -> Groups:
    """Return the slots of each image. features: float [B, d, h, w]; slots: float [N, d]; computed in float32."""
    logits = assignment_logits(features, slots)
    return Groups(logits, pool(features, logits, temperature))


def winners(logits: Tensor) -> Tensor:
    """Return the slot with the highest attention at each place: int64 [B, h, w]."""
    return logits.argmax(dim=1)


def places(logits: Tensor) -> Tensor:
    """Return how many places each slot wins: int64 [B, N]."""
    slots = torch.arange(logits.shape[1], device=logits.device)
    return (winners(logits)[:, None] == slots[:, None, None]).sum(dim=(2, 3))


def active(logits: Tensor) -> Tensor:
    """Return which slots win at least one place: bool [B, N]."""
    return places(logits) > 0
