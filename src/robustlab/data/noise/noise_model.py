"""What a model of label noise is."""

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

    rate: the nominal rate, NaN where there is none; the true one is counted from the labels. asymmetric: whether each
    class is taken for a certain other one, which some methods train differently on (CrossSplit's warm-up); None where
    it is not known. needs_clean_labels: False where the model does not build on the labels that the data set gives.
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
        """Return the assigned labels, int64 [N], a new tensor.

        clean: int64 [N], left as it is. images: uint8 [N, C, H, W] or lazy; only instance-dependent noise looks at
        them.
        """

    def check(self, task: TaskSpec) -> None:  # noqa: B027 (most models fit every data set)
        """Raise `ConfigError` where the model makes no sense for a data set."""

    def __repr__(self) -> str:
        """Return the class with its settings: part of the record of a run."""
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


Rate = Annotated[float, Range(low=0, high=1)]


def check_rate(rate: float) -> float:
    """Return the rate as a float; raise ConfigError outside [0, 1]."""
    if not 0.0 <= rate <= 1.0:
        raise ConfigError(f"noise.model.rate={rate} lies outside [0, 1]")
    return float(rate)
