"""The three losses of stage 1: distillation of the assignment, slot contrast, vector quantisation (equations 1 to 5).

Distillation and contrast come from SlotCon (Wen et al., NeurIPS 2022). All losses take float32 and return a scalar, the
mean over the global batch: averaged over ranks, values and gradients equal those of a single process. Only the
student's outputs carry a gradient.
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
    """The teacher's slots for the global batch.

    - vectors: (M, N, d) float32, unit length.
    - active: (M, N) bool.
    - own: rows of this rank's images, (B,) int64.
    """

    vectors: Tensor
    active: Tensor
    own: Tensor


def gather_keys(vectors: Tensor, active: Tensor, *, total: int, runtime: Runtime) -> Keys:
    """Gather the keys of all ranks.

    - vectors: (B, N, d) float32, any length.
    - active: (B, N) bool.
    - total: number of images in the global batch.
    """
    count, slots, dim = vectors.shape
    unit = F.normalize(vectors.detach(), dim=2)
    rows = whole(torch.cat([unit.flatten(1), active.to(unit.dtype)], dim=1), total, runtime=runtime)
    own = torch.arange(count, device=vectors.device) * runtime.world_size + runtime.rank
    return Keys(rows[:, : slots * dim].view(-1, slots, dim), rows[:, slots * dim :] > 0, own)


def valid_mean(values: Tensor, valid: Tensor, *, runtime: Runtime, least: int = 1) -> Tensor:
    """Return the mean of the valid values over all ranks, or a differentiable zero if there are fewer than `least`.

    Each rank returns its share times world_size.

    - values: (...) float, finite.
    - valid: (...) bool.
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
    """Return L_dist, the mean over images and positions of -sum_n P_t[n] log P_s[n].

    - student, teacher: logits on the same grid, (B, N, h, w) float32.
    - centre: (N,) float32.
    """
    target = ((teacher.detach() - centre[:, None, None]) / teacher_temperature).softmax(dim=1)
    cross_entropy = -(target * (student / student_temperature).log_softmax(dim=1)).sum(dim=1).mean(dim=(1, 2))
    return valid_mean(cross_entropy, torch.ones_like(cross_entropy, dtype=torch.bool), runtime=runtime)


def contrast(queries: Tensor, keys: Keys, valid: Tensor, *, temperature: float, runtime: Runtime) -> Tensor:
    """Return L_con, the cross-entropy of matching each valid query to its own key among all active keys.

    Multiplied by 2 * temperature, as in SlotCon. Zero if fewer than two queries are valid.

    - queries: the predictor's output, (B, N, d) float32.
    - valid: slots that are active in both the student's and the teacher's view, (B, N) bool.
    """
    slots = queries.shape[1]
    flat = keys.vectors.flatten(0, 1)
    label = (keys.own[:, None] * slots + torch.arange(slots, device=queries.device)).flatten()
    similarity = F.normalize(queries, dim=2).flatten(0, 1) @ flat.T / temperature
    # An invalid query may have an inactive key; keep that key in its row, so that the row is finite.
    positive = label[:, None] == torch.arange(len(flat), device=queries.device)
    similarity = similarity.masked_fill(~(keys.active.flatten() | positive), -torch.inf)
    rows = F.cross_entropy(similarity, label, reduction="none").view(valid.shape) * (2 * temperature)
    return valid_mean(rows, valid, runtime=runtime, least=2)


def quantisation(
    vectors: Tensor, codes: Tensor, assigned: Tensor, valid: Tensor, *, temperature: float, runtime: Runtime
) -> Tensor:
    """Return L_vq, the mean over valid slots of -log softmax_k(-D / temperature) at the teacher's code.

    D is the squared distance of unit vectors, 2 - 2 cos (equations 1 to 4).

    - vectors: the student's slots, (B, N, d) float32.
    - codes: (K, d) float32, unit length.
    - assigned: the teacher's codes, (B, N) int64.
    - valid: (B, N) bool.
    """
    similarity = 2 * (F.normalize(vectors, dim=2) @ codes.detach().T) / temperature
    rows = F.cross_entropy(similarity.flatten(0, 1), assigned.flatten(), reduction="none").view(valid.shape)
    return valid_mean(rows, valid, runtime=runtime)
