"""The networks of stage 1: a student with slots and a predictor, and a teacher that follows it.

No code of the authors is public; projector, slots and predictor are those of SlotCon (Wen et al., NeurIPS 2022), on
which stage 1 is built.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from robustlab.methods.groups.cobalt.discovery_settings import SlotSettings, TeacherSettings
from robustlab.models.layers import conv1x1
from robustlab.models.maps import feature_maps

LONG_RUN = 2000
"""Updates from which on `schedule: auto` keeps the teacher's momentum constant."""


class SlotEncoder(nn.Module):
    """What student and teacher both have: encoder, projector and the slots.

    The slots are one learned matrix float [N, d], shared by all images; only their directions matter to the forward
    pass. They are not those of slot attention (Locatello et al. 2020): nothing is iterated or drawn.
    """

    def __init__(self, encoder: nn.Module, *, channels: int, settings: SlotSettings) -> None:
        """encoder: gives feature maps of `channels` channels, see `feature_maps`."""
        super().__init__()
        self.encoder = encoder
        self.projector = nn.Sequential(
            conv1x1(channels, settings.hidden),
            nn.BatchNorm2d(settings.hidden),
            nn.GELU(),
            conv1x1(settings.hidden, settings.hidden),
            nn.BatchNorm2d(settings.hidden),
            nn.GELU(),
            nn.Conv2d(settings.hidden, settings.dim, 1),
        )
        self.slots = nn.Parameter(torch.randn(settings.count, settings.dim))

    def forward(self, images: Tensor) -> Tensor:
        """Return z, the projected feature maps: float [B, d, h, w] for images float [B, C, H, W]."""
        return self.projector(feature_maps(self.encoder, images))


class Student(nn.Module):
    """A `SlotEncoder` that is trained, and the predictor of the slot contrast, which the teacher does not have."""

    def __init__(self, base: SlotEncoder, *, settings: SlotSettings) -> None:
        super().__init__()
        self.base = base
        self.predictor = nn.Sequential(
            nn.Linear(settings.dim, settings.hidden, bias=False),
            nn.BatchNorm1d(settings.hidden),
            nn.GELU(),
            nn.Linear(settings.hidden, settings.dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return z, float [B, d, h, w]."""
        return self.base(images)

    def predict(self, vectors: Tensor) -> Tensor:
        """Return the predictor's output, float [B, N, d], for slot vectors float [B, N, d].

        BatchNorm sees the vectors of all slots, active or not: their number then does not depend on values, which
        would have to be waited for.
        """
        return self.predictor(vectors.flatten(0, 1)).view_as(vectors)


def make_student(encoder: nn.Module, *, image_shape: tuple[int, int, int], settings: SlotSettings) -> Student:
    """Return a student around `encoder`, whose channels are found by passing two black images.

    Raises `ConfigError` for an encoder that gives no feature maps.
    """
    training = encoder.training
    with torch.no_grad():
        channels = feature_maps(encoder.eval(), torch.zeros(2, *image_shape)).shape[1]
    encoder.train(training)
    return Student(SlotEncoder(encoder, channels=channels, settings=settings), settings=settings)


def make_teacher(student: Student) -> SlotEncoder:
    """Return a copy of the student without predictor and without gradients, in train mode.

    Its BatchNorm statistics are its own: it runs in train mode while the student trains (SlotCon).
    """
    teacher = deepcopy(student.base).train()
    teacher.requires_grad_(False)
    return teacher


@torch.no_grad()
def update_teacher(teacher: SlotEncoder, student: Student, *, momentum: float) -> None:
    """Move every parameter: theta_t <- m theta_t + (1 - m) theta_s. Buffers (BatchNorm statistics) stay."""
    get_ema_multi_avg_fn(momentum)(list(teacher.parameters()), list(student.base.parameters()), None)


def momentum_at(update: int, *, total: int, settings: TeacherSettings) -> float:
    """Return the teacher's momentum at an update of `total`, both counted from zero."""
    schedule = settings.schedule
    if schedule == "auto":
        schedule = "cosine" if total < LONG_RUN else "constant"
    if schedule == "constant":
        return settings.momentum
    return 1 - (1 - settings.momentum) * (math.cos(math.pi * min(update / max(total, 1), 1.0)) + 1) / 2
