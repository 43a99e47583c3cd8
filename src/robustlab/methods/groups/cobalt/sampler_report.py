"""Describe a concept-balanced sampler: how often each image is drawn, and how balanced the result is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robustlab.methods.groups.cobalt.fitted_draw import Fit


@dataclass(frozen=True)
class SamplerReport:
    """A concept-balanced sampler and its properties.

    - eta: exponent of Algorithm 1; None if fitted.
    - p: probability of each image in one draw, (n,) float64, sum 1.
    - table: n[k, y] of all concepts, (K, C) int64.
    - kept: which concepts are balanced, (K,) bool.
    - adopted: number of images that lost all their concepts and joined another one.
    - variation_before, variation: distance of each concept's labels from uniform, under uniform sampling and under p,
      (K,) float64, NaN for dropped concepts; see `label_variation`.
    - fit: result of the fit; None for Algorithm 1.
    - label_share: probability of each label in one draw, (C,) float64.
    - largest: the largest P(i) * n.
    - bounded: number of images limited by `max_ratio`.
    - effective_size: effective sample size, 1 / sum of P(i)^2; n for uniform sampling.
    """

    eta: float | None
    p: Tensor
    table: Tensor
    kept: Tensor
    adopted: int
    variation_before: Tensor
    variation: Tensor
    fit: Fit | None
    label_share: Tensor
    largest: float
    bounded: int
    effective_size: float

    @property
    def dropped(self) -> list[int]:
        """The concepts that occur but are dropped."""
        return _places(~self.kept & (self.table.sum(dim=1) > 0))

    def metrics(self) -> dict[str, float]:
        """Return the scalars to log."""
        how = {"eta": self.eta} if self.eta is not None else {}
        if self.fit is not None:
            how = {"concepts_not_fitted": float(len(self.fit.left_out)), "fit_iterations": float(self.fit.iterations)}
        return {
            **how,
            "concepts_kept": float(self.kept.sum()),
            "images_adopted": float(self.adopted),
            "variation_before": float(self.variation_before[self.kept].max()),
            "variation": float(self.variation[self.kept].max()),
            "largest": self.largest,
            "images_bounded": float(self.bounded),
            "effective_size": self.effective_size,
            "rarest_label": float(self.label_share.min()),
            "commonest_label": float(self.label_share.max()),
        }

    def record(self) -> dict[str, Any]:
        """Return everything but `p` as plain types."""
        columns = {"before": self.variation_before.tolist(), "after": self.variation.tolist()}
        return {
            "eta": self.eta,
            "kept": _places(self.kept),
            "dropped": self.dropped,
            "images_adopted": self.adopted,
            "variation_of_each_concept": {
                name: [value if kept else None for value, kept in zip(column, self.kept.tolist(), strict=True)]
                for name, column in columns.items()
            },
            "fit": None if self.fit is None else self.fit.record(),
            "label_share": self.label_share.tolist(),
            "largest": self.largest,
            "images_bounded": self.bounded,
            "effective_size": self.effective_size,
            "images_of_each_concept_and_label": self.table.tolist(),
        }


def _places(flags: Tensor) -> list[int]:
    return flags.nonzero().flatten().tolist()
