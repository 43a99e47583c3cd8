"""Measure how many wrong training labels the networks have memorised; as a diagnostic, it may use clean labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor, isin

from robustlab.config.kinds import Range
from robustlab.data.run_data import Data
from robustlab.engine.diagnostic import Clock, Diagnostic
from robustlab.engine.inference import train_predictions


class Memorisation(Diagnostic):
    """Shares of wrongly labelled training samples that are predicted as the assigned and as the clean label.

    "diagnostics/memorised" and "diagnostics/corrected" refer to the method's prediction. If each network is trained on
    its own part of the labels (`Method.label_owners`), "diagnostics/<network>/memorised_own" and "..._other" refer to
    one network on its own and on the other labels, and "diagnostics/memorised_own" and "_other" pool all networks.
    Nothing is measured if no label is known to be wrong.
    """

    def __init__(
        self, *, every: Annotated[int, Range(low=0)] = 10, batch_size: Annotated[int, Range(low=1)] = 1000
    ) -> None:
        """Check the arguments.

        - every: measure after every so many epochs, and after the last one; 0 for never.
        - batch_size: images per forward pass.
        """
        self.every, self.batch_size = every, batch_size

    def due(self, clock: Clock) -> bool:
        """Return whether to measure now; never if no label is known to be wrong."""
        wanted = self.every > 0 and ((clock.epoch + 1) % self.every == 0 or clock.is_last)
        return wanted and len(wrong_labels(self.context.data)) > 0

    def measure(self, clock: Clock) -> dict[str, float]:
        """Return the shares described in the class."""
        data = self.context.data
        predicted = train_predictions(data, self.method.predictions, batch_size=self.batch_size)
        metrics = {f"diagnostics/{name}": value for name, value in memorised(predicted[""], data).items()}
        return metrics | by_owner(predicted, data, self.method.label_owners())


def wrong_labels(data: Data, *, within: Tensor | None = None) -> Tensor:
    """Return the indices of samples whose assigned label is wrong, int64 on the CPU; empty without clean labels.

    - within: indices to consider, default `train_indices`.
    """
    index = data.train_indices if within is None else within
    if data.clean is None:
        return index[:0]
    return index[data.assigned[index] != data.clean[index]]


def memorised(predicted: Tensor, data: Data, *, within: Tensor | None = None) -> dict[str, float]:
    """Return {"memorised", "corrected"}: shares of wrongly labelled samples predicted as assigned and clean label.

    - predicted: (N,) int64, as returned by `train_predictions`.
    - within: indices to consider, default `train_indices`.

    Empty if no label is known to be wrong.
    """
    wrong = wrong_labels(data, within=within)
    if len(wrong) == 0 or data.clean is None:
        return {}
    return {
        "memorised": (predicted[wrong] == data.assigned[wrong]).double().mean().item(),
        "corrected": (predicted[wrong] == data.clean[wrong]).double().mean().item(),
    }


def by_owner(predicted: Mapping[str, Tensor], data: Data, owners: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the memorised shares per network, for the labels that it was trained on and for the others.

    - predicted: name of a part -> (N,) int64, as returned by `train_predictions`.
    - owners: as returned by `Method.label_owners`.
    """
    metrics = {}
    for place in ("own", "other"):
        total, count = 0.0, 0
        for name, own in owners.items():
            within = own if place == "own" else _without(data.train_indices, own)
            if shares := memorised(predicted[name], data, within=within):
                metrics[f"diagnostics/{name}/memorised_{place}"] = shares["memorised"]
                size = len(wrong_labels(data, within=within))
                total, count = total + size * shares["memorised"], count + size
        if count:
            metrics[f"diagnostics/memorised_{place}"] = total / count
    return metrics


def _without(indices: Tensor, own: Tensor) -> Tensor:
    return indices[~isin(indices, own)]
