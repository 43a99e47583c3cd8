"""Which samples each step gets: pure functions of (seed, purpose, epoch, step), so there is no sampler state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError

LARGEST_DRAW = 1 << 24
"""`torch.multinomial` takes no more categories."""


@dataclass(frozen=True)
class Order:
    """The passes of one loader over `length` samples in batches of `batch_size`.

    An epoch that is longer than a pass goes on with another pass, called the next cycle, in a new order. A shuffled
    pass leaves out a last batch in which one of `ranks` processes would have less than two samples, where there are
    other batches: BatchNorm cannot train on a single one. An unshuffled pass serves every sample unless `drop_last`.
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
        """Return the number of batches of one pass."""
        full, rest = divmod(self.length, self.batch_size)
        too_small = self.shuffle and rest < 2 * self.ranks and full > 0
        return full + (rest > 0 and not self.drop_last and not too_small)

    def rows(self, step: int) -> range:
        """Return the places in the pass that make up batch `step` of it."""
        return range(step * self.batch_size, min((step + 1) * self.batch_size, self.length))

    def key(self, *purpose: int | str, epoch: int, cycle: int) -> int:
        """Return the random key of something that happens in one pass, e.g. `key("view", 0, epoch=3, cycle=0)`."""
        return rng.fold(self.seed, self.purpose, *purpose, epoch, cycle)

    def permutation(self, *, epoch: int, cycle: int) -> Tensor:
        """Return the order of one pass: int64 [length], positions in 0..length-1, on the CPU."""
        if not self.shuffle:
            return torch.arange(self.length)
        return rng.permutation(self.key("order", epoch=epoch, cycle=cycle), self.length)


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedOrder(Order):
    """Passes of `length` draws with replacement; place i is drawn with probability weights[i] / sum(weights).

    weights: float64 [length] on the CPU, at least 0. Steps are cut as those of a shuffled pass.
    """

    weights: Tensor
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse weights that no probabilities follow from."""
        assert self.weights.shape == (self.length,)
        assert self.weights.dtype == torch.float64
        assert bool((self.weights >= 0).all())
        assert 0 < float(self.weights.sum()) < float("inf")
        if self.length > LARGEST_DRAW:
            raise ConfigError(f"drawing from {self.length} samples: torch draws from {LARGEST_DRAW} at most")

    def permutation(self, *, epoch: int, cycle: int) -> Tensor:
        """Return the draws of one pass: int64 [length], positions in 0..length-1, on the CPU."""
        generator = rng.generator(self.key("draw", epoch=epoch, cycle=cycle))
        return torch.multinomial(self.weights, self.length, replacement=True, generator=generator)
