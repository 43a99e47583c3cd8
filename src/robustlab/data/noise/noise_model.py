"""The contract of label noise models."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated

import numpy as np
from torch import Tensor

from robustlab.config.kinds import Range
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import LazyImages, TaskSpec


class NoiseModel(ABC):
    """Turns clean labels into assigned ones.

    - rate: the nominal rate, NaN if there is none; the true rate is counted from the labels.
    - asymmetric: whether each class flips to one particular class, which some methods treat differently (CrossSplit's
      warm-up); None if unknown.
    - needs_clean_labels: False if the model does not depend on the data set's own labels.
    """

    rate: float = math.nan
    asymmetric: bool | None = None
    needs_clean_labels: bool = True

    @abstractmethod
    def apply(
        self,
        clean: Tensor,
        *,
        num_classes: int,
        generator: np.random.Generator,
        images: Tensor | LazyImages | None,
    ) -> Tensor:
        """Return the assigned labels, a new (N,) int64 tensor.

        - clean: (N,) int64, not modified.
        - images: (N, C, H, W) uint8 or lazy; only used by instance-dependent noise.
        """

    def check(self, task: TaskSpec) -> None:  # noqa: B027 (most models fit every data set)
        """Raise `ConfigError` if the model makes no sense for a data set."""

    def __repr__(self) -> str:
        """Return the class with its settings, which is part of a run's record."""
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


Rate = Annotated[float, Range(low=0, high=1)]


def check_rate(rate: float) -> float:
    """Return the rate as a float; raise ConfigError outside [0, 1]."""
    if not 0.0 <= rate <= 1.0:
        raise ConfigError(f"noise.model.rate={rate} lies outside [0, 1]")
    return float(rate)
