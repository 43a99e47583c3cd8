"""The three losses of stage 1: distillation of the assignment, slot contrast, vector quantisation (equations 1 to 5).

Distillation and contrast are SlotCon's (Wen et al., NeurIPS 2022). All take float32 and return a scalar, the mean over
the global batch: under several ranks the mean of the ranks' values, and of their gradients, is that of one process.
Only what the student computed carries a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from robustlab.core.runtime import Runtime
from robustlab.engine.shared_batch import whole


@dataclass(frozen=True)
class Keys:
    """The teacher's slots of the global batch.

    vectors: unit length, float32 [M, N, d]. active: bool [M, N]. own: rows of this rank's images, int64 [B].
    """

    vectors: Tensor
    active: Tensor
    own: Tensor


def gather_keys(vectors: Tensor, active: Tensor, *, total: int, runtime: Runtime) -> Keys:
    """Return the keys of all ranks. vectors: float32 [B, N, d], of any length; active: bool [B, N].

    total: images of the global batch.
    """
    count, slots, dim = vectors.shape
    unit = F.normalize(vectors.detach(), dim=2)
    rows = whole(torch.cat([unit.flatten(1), active.to(unit.dtype)], dim=1), total, runtime=runtime)
    own = torch.arange(count, device=vectors.device) * runtime.world_size + runtime.rank
    return Keys(rows[:, : slots * dim].view(-1, slots, dim), rows[:, slots * dim :] > 0, own)


def valid_mean(values: Tensor, valid: Tensor, *, runtime: Runtime, least: int = 1) -> Tensor:
    """Return the mean of the valid values of all ranks; zero, with a path for gradients, of fewer than `least`.

    values: float [...], finite; valid: bool [...]. Each rank returns its share times world_size.
    """
    count = valid.sum()
    if runtime.world_size > 1:
        dist.all_reduce(count)
    total = torch.where(valid, values, 0.0).sum() * runtime.world_size
    return torch.where(count >= least, total / count.clamp(min=1), 0.0 * total)


def distillation(
    student: Tensor,
    teacher: Tensor,
    centre: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    runtime: Runtime,
) -> Tensor:
    """Return L_dist: mean over images and places of -sum_n P_t[n] log P_s[n].

    student, teacher: logits on the same grid, float32 [B, N, h, w]. centre: float32 [N].
    """
    target = ((teacher.detach() - centre[:, None, None]) / teacher_temperature).softmax(dim=1)
    cross_entropy = -(target * (student / student_temperature).log_softmax(dim=1)).sum(dim=1).mean(dim=(1, 2))
    return valid_mean(cross_entropy, torch.ones_like(cross_entropy, dtype=torch.bool), runtime=runtime)


def contrast(queries: Tensor, keys: Keys, valid: Tensor, *, temperature: float, runtime: Runtime) -> Tensor:
    """Return L_con: cross-entropy of each valid query with the key of its image and slot among all active keys.

    queries: the predictor's output, float32 [B, N, d]. valid: bool [B, N], active in the student's view and in the
    teacher's. Times 2 temperature (SlotCon). Zero where fewer than two queries are valid.
    """
    slots = queries.shape[1]
    flat = keys.vectors.flatten(0, 1)
    label = (keys.own[:, None] * slots + torch.arange(slots, device=queries.device)).flatten()
    similarity = F.normalize(queries, dim=2).flatten(0, 1) @ flat.T / temperature
    # A query that is not valid may have an inactive key: that stays among its own, so that its row is finite.
    positive = label[:, None] == torch.arange(len(flat), device=queries.device)
    similarity = similarity.masked_fill(~(keys.active.flatten() | positive), -torch.inf)
    rows = F.cross_entropy(similarity, label, reduction="none").view(valid.shape) * (2 * temperature)
    return valid_mean(rows, valid, runtime=runtime, least=2)


def quantisation(
    vectors: Tensor, codes: Tensor, assigned: Tensor, valid: Tensor, *, temperature: float, runtime: Runtime
) -> Tensor:
    """Return L_vq: mean over valid slots of -log softmax_k(-D / temperature) at the teacher's code, equations 1 to 4.

    vectors: the student's slots, float32 [B, N, d]. codes: unit length, float32 [K, d]. assigned: int64 [B, N]. D is
    the squared distance of unit vectors, 2 - 2 cos.
    """
    similarity = 2 * (F.normalize(vectors, dim=2) @ codes.detach().T) / temperature
    rows = F.cross_entropy(similarity.flatten(0, 1), assigned.flatten(), reduction="none").view(valid.shape)
    return valid_mean(rows, valid, runtime=runtime)
