"""Measure how many wrong training labels are memorised; as a diagnostic, it may use clean labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.data.module import Data
from robustlab.methods.checks import at_least


@dataclass(frozen=True)
class DiagnosticsSettings:
    """When to measure on the train split: after every `every` epochs and after the last one; 0 means never."""

    every: int = 10
    batch_size: int = 1000

    def __post_init__(self) -> None:
        at_least("diagnostics.every", self.every, 0)
        at_least("diagnostics.batch_size", self.batch_size, 1)

    def due(self, epoch: int, epochs: int) -> bool:
        """Return whether to measure after `epoch` (counted from zero) of `epochs`."""
        return self.every > 0 and ((epoch + 1) % self.every == 0 or epoch + 1 == epochs)


def train_predictions(
    data: Data, predict: Callable[[Tensor], dict[str, Tensor]], *, batch_size: int
) -> dict[str, Tensor]:
    """Return name -> predicted class on the un-augmented train split, (N,) int64 on the CPU; -1 for unused samples.

    - predict: images -> named logits, (B, C) each.
    """
    classes: dict[str, list[Tensor]] = {}
    indices: list[Tensor] = []
    for batch in data.evaluation("train", batch_size).epoch(0):
        indices.append(batch.index)
        for name, logits in predict(batch.images).items():
            classes.setdefault(name, []).append(logits.argmax(dim=1))
    index = torch.cat(indices).cpu()
    return {
        name: torch.full((data.num_train,), -1).index_copy(0, index, torch.cat(parts).cpu())
        for name, parts in classes.items()
    }


def wrong_labels(data: Data, *, within: Tensor | None = None) -> Tensor:
    """Return the indices of samples whose assigned label is wrong, int64 on the CPU; empty without clean labels.

    - within: indices to consider, default `train_indices`.
    """
    index = data.train_indices if within is None else within
    if data.clean is None:
        return index[:0]
    return index[data.assigned[index] != data.clean[index]]


def memorised(predicted: Tensor, data: Data, *, within: Tensor | None = None) -> dict[str, float]:
    """Return {"memorised", "corrected"}: shares of wrongly labelled samples predicted as the assigned and clean label.

    Empty if no label is known to be wrong.

    - predicted: (N,) int64, as returned by `train_predictions`.
    - within: indices to consider, default `train_indices`.
    """
    wrong = wrong_labels(data, within=within)
    if len(wrong) == 0 or data.clean is None:
        return {}
    return {
        "memorised": (predicted[wrong] == data.assigned[wrong]).double().mean().item(),
        "corrected": (predicted[wrong] == data.clean[wrong]).double().mean().item(),
    }


def memorisation_metrics(
    data: Data, predict: Callable[[Tensor], dict[str, Tensor]], *, settings: DiagnosticsSettings
) -> dict[str, float]:
    """Return "diagnostics/memorised" and "diagnostics/corrected" for the prediction named ""; nothing without noise."""
    if len(wrong_labels(data)) == 0:
        return {}
    predicted = train_predictions(data, predict, batch_size=settings.batch_size)[""]
    return {f"diagnostics/{name}": value for name, value in memorised(predicted, data).items()}
