"""Random streams as pure functions of (seed, purpose, epoch, index or step), without state to save or disturb.

`fold` turns a seed and a purpose into a 63-bit key. From a key come either a generator (permutations, MixUp's lambda)
or, for per-sample augmentation, counter-based uniforms: the number that sample 17 gets depends on the key and on 17,
not on the batch it came in, so batch size, workers, chunks and ranks leave it unchanged.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

_MASK63 = (1 << 63) - 1


def fold(seed: int, *purpose: int | str) -> int:
    """Return the key in [0, 2**63) of a purpose, e.g. `fold(seed, "order", epoch)`; equal arguments, equal key."""
    text = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") & _MASK63


def generator(key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator seeded with `key`."""
    return torch.Generator(device=device).manual_seed(key)


def numpy_generator(key: int) -> np.random.Generator:
    """Return a NumPy generator seeded with `key`."""
    return np.random.default_rng(key)


def permutation(key: int, length: int) -> Tensor:
    """Return an int64 permutation of `range(length)` on the CPU."""
    return torch.randperm(length, generator=generator(key))


def _signed(constant: int) -> int:
    """Return the int64 with the bits of an unsigned 64-bit constant."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014), in wrapping int64 arithmetic."""
    x = (x ^ _shift_right(x, 30)) * _MIX1
    x = (x ^ _shift_right(x, 27)) * _MIX2
    return x ^ _shift_right(x, 31)


def uniform(key: int, index: Tensor, count: int) -> Tensor:
    """Return `count` uniforms in [0, 1) for each sample, a pure function of (key, index, draw number).

    index: int64 [B], on any device. Returns float32 [B, count] on the same device.
    """
    draws = torch.arange(1, count + 1, device=index.device)
    stream = _mix(index * _GOLDEN + key)  # one well-mixed stream per sample
    bits = _mix(stream[:, None] + draws * _GOLDEN)
    return _shift_right(bits, 40).to(torch.float32) * (1.0 / (1 << 24))
