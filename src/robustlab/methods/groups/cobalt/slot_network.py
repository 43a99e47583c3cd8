"""The networks of stage 1: a student with slots and a predictor, and a teacher that follows it.

The authors have published no code; projector, slots and predictor follow SlotCon (Wen et al., NeurIPS 2022), on which
stage 1 is based.
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
"""Number of updates from which `schedule: auto` keeps the teacher's momentum constant."""


class SlotEncoder(nn.Module):
    """The part shared by student and teacher: encoder, projector and slots.

    The slots are one learned matrix, (N, d) float, shared by all images; only their directions affect the forward pass.
    This differs from slot attention (Locatello et al. 2020): nothing is iterated or sampled.
    """

    def __init__(self, encoder: nn.Module, *, channels: int, settings: SlotSettings) -> None:
        """Build projector and slots around an encoder.

        - encoder: returns feature maps with `channels` channels, see `feature_maps`.
        """
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
        """Return z, the projected feature maps, (B, d, h, w) float, for images, (B, C, H, W) float."""
        return self.projector(feature_maps(self.encoder, images))


class Student(nn.Module):
    """A trained `SlotEncoder` with the predictor of the slot contrast, which the teacher does not have."""

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
        """Return z, (B, d, h, w) float."""
        return self.base(images)

    def predict(self, vectors: Tensor) -> Tensor:
        """Return the predictor's output, (B, N, d) float, for slot vectors, (B, N, d) float.

        BatchNorm sees the vectors of all slots, active or not, so that their number does not depend on values, which
        would require a synchronisation.
        """
        return self.predictor(vectors.flatten(0, 1)).view_as(vectors)


def make_student(encoder: nn.Module, *, image_shape: tuple[int, int, int], settings: SlotSettings) -> Student:
    """Return a student around `encoder`, whose number of channels is found by passing two black images.

    Raises `ConfigError` for an encoder without feature maps.
    """
    training = encoder.training
    with torch.no_grad():
        channels = feature_maps(encoder.eval(), torch.zeros(2, *image_shape)).shape[1]
    encoder.train(training)
    return Student(SlotEncoder(encoder, channels=channels, settings=settings), settings=settings)


def make_teacher(student: Student) -> SlotEncoder:
    """Return a copy of the student without predictor and without gradients.

    It stays in train mode and keeps its own BatchNorm statistics while the student trains (SlotCon).
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
