"""Assign the training labels: the clean ones, or the output of a noise model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import Split, TaskSpec, check_labels
from robustlab.data.noise import label_files
from robustlab.data.noise.noise_model import NoiseModel


@dataclass(frozen=True)
class AssignedLabels:
    """Labels of the training split, (N,) int64 on the CPU.

    - assigned: the labels to train on, after `noise`.
    - given: the data set's own labels.
    - clean: the true labels, None if unknown.
    """

    assigned: Tensor
    given: Tensor
    clean: Tensor | None
    noise: NoiseModel | None
    noise_name: str
    noise_seed: int

    @cached_property
    def is_noisy(self) -> Tensor | None:
        """Which labels are wrong, (N,) bool: assigned != clean; None if clean labels are unknown."""
        return None if self.clean is None else self.assigned != self.clean

    def true_rate(self, indices: Tensor) -> float | None:
        """Return the share of wrong labels among the samples at `indices`; None if clean labels are unknown."""
        return None if self.is_noisy is None else self.is_noisy[indices].double().mean().item()

    def record(self, indices: Tensor) -> dict[str, Any]:
        """Return name, model, rates, asymmetry, number of wrong labels, seed, and hashes of the labels.

        Rate and count refer to the samples at `indices`, the hashes to the whole split.
        """
        return {
            "name": self.noise_name,
            "model": None if self.noise is None else repr(self.noise),
            "rate": None if self.noise is None or math.isnan(self.noise.rate) else self.noise.rate,
            "asymmetric": False if self.noise is None else self.noise.asymmetric,
            "true_rate": self.true_rate(indices),
            "num_wrong": None if self.is_noisy is None else int(self.is_noisy[indices].sum()),
            "seed": self.noise_seed,
            "hash": label_files.label_hash(self.assigned),
            "clean_hash": None if self.clean is None else label_files.label_hash(self.clean),
        }


def assign(
    noise: NoiseModel | None, split: Split, *, clean: bool, task: TaskSpec, name: str, seed: int
) -> AssignedLabels:
    """Return the labels to train on.

    - clean: whether the training split's own labels are known to be correct.

    Raises ConfigError if noise could not be distinguished from wrong labels, DataError for a label file that does not
    fit.
    """
    given = split.labels.to(torch.int64).clone()
    check_labels(given, task.num_classes, where="the training split", names=task.class_names)
    known = given if clean else None
    if noise is None:
        return AssignedLabels(given.clone(), given, known, noise, name, seed)
    if noise.needs_clean_labels and not clean:
        raise ConfigError(
            f"noise={name} is defined on clean labels, but this data set's own labels are known to be partly wrong; "
            "use noise=none"
        )
    noise.check(task)
    generator = rng.numpy_generator(rng.fold(seed, "noise", type(noise).__name__))
    assigned = noise.apply(given, num_classes=task.num_classes, generator=generator, images=split.images)
    if len(assigned) != len(given) or bool(((assigned < 0) | (assigned >= task.num_classes)).any()):
        raise DataError(
            f"noise={name} gave {len(assigned)} labels for {len(given)} samples, or labels outside "
            f"0..{task.num_classes - 1}; fix the label file"
        )
    return AssignedLabels(assigned, given, known, noise, name, seed)
