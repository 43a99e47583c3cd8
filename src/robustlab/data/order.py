"""Which samples each step gets: pure functions of (seed, purpose, epoch, step), so there is no sampler state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab import rng


@dataclass(frozen=True)
class Order:
    """The passes of one loader over `length` samples in batches of `batch_size`.

    An epoch that is longer than a pass goes on with another pass, called the next cycle, in a new order. A shuffled
    pass leaves out a last batch of a single sample where there are other batches, because BatchNorm cannot train on
    it; an unshuffled pass always serves every sample unless `drop_last`.
    """

    length: int
    batch_size: int
    seed: int
    purpose: str
    shuffle: bool = True
    drop_last: bool = False

    @property
    def steps(self) -> int:
        """Return the number of batches of one pass."""
        full, rest = divmod(self.length, self.batch_size)
        single = self.shuffle and rest == 1 and full > 0
        return full + (rest > 0 and not self.drop_last and not single)

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
