"""Determine the samples of each step as a pure function of (seed, purpose, epoch, step), without sampler state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError

LARGEST_DRAW = 1 << 24
"""The maximum number of categories for `torch.multinomial`."""


@dataclass(frozen=True)
class Order:
    """The passes of one loader over `length` samples in batches of `batch_size`.

    An epoch longer than a pass continues with another pass, called the next cycle, in a new order. A shuffled pass
    drops a last batch that would leave one of `ranks` processes with fewer than two samples, if there are other
    batches, because BatchNorm cannot train on a single sample. An unshuffled pass serves every sample unless
    `drop_last`.
    """

    length: int
    batch_size: int
    seed: int
    purpose: str
    shuffle: bool = True
    drop_last: bool = False
    ranks: int = 1
    repeats: ClassVar[bool] = False
    """Whether a pass may serve a sample more than once."""

    @property
    def steps(self) -> int:
        """Return the number of batches in one pass."""
        full, rest = divmod(self.length, self.batch_size)
        too_small = self.shuffle and rest < 2 * self.ranks and full > 0
        return full + (rest > 0 and not self.drop_last and not too_small)

    def rows(self, step: int) -> range:
        """Return the positions in the pass that form batch `step`."""
        return range(step * self.batch_size, min((step + 1) * self.batch_size, self.length))

    def key(self, *purpose: int | str, epoch: int, cycle: int) -> int:
        """Return a random key for some purpose in one pass, e.g. `key("view", 0, epoch=3, cycle=0)`."""
        return rng.fold(self.seed, self.purpose, *purpose, epoch, cycle)

    def permutation(self, *, epoch: int, cycle: int) -> Tensor:
        """Return the order of one pass, (length,) int64 on the CPU, positions in 0..length-1."""
        if not self.shuffle:
            return torch.arange(self.length)
        return rng.permutation(self.key("order", epoch=epoch, cycle=cycle), self.length)


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedOrder(Order):
    """Passes of `length` draws with replacement; position i is drawn with probability weights[i] / sum(weights).

    Batches are formed as in a shuffled pass.

    - weights: (length,) float64 on the CPU, non-negative.
    """

    weights: Tensor
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse weights that do not define probabilities."""
        assert self.weights.shape == (self.length,)
        assert self.weights.dtype == torch.float64
        assert bool((self.weights >= 0).all())
        assert 0 < float(self.weights.sum()) < float("inf")
        if self.length > LARGEST_DRAW:
            raise ConfigError(f"drawing from {self.length} samples: torch can draw from at most {LARGEST_DRAW}")

    def permutation(self, *, epoch: int, cycle: int) -> Tensor:
        """Return the draws of one pass, (length,) int64 on the CPU, positions in 0..length-1."""
        generator = rng.generator(self.key("draw", epoch=epoch, cycle=cycle))
        return torch.multinomial(self.weights, self.length, replacement=True, generator=generator)
