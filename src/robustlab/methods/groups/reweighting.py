"""RWG and SUBG: balance groups by reweighting or subsampling (Idrissi, Arjovsky, Pezeshki, Lopez-Paz, CLeaR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.data.serving.loader import Loader
from robustlab.data.told_groups import train_groups
from robustlab.engine.method import Context
from robustlab.methods.erm import ERM
from robustlab.methods.groups.class_balanced import inverse_frequency


def balanced_choice(groups: Tensor, *, key: int) -> Tensor:
    """Return the positions of a subsample with as many samples of each group as the smallest one has, int64, ascending.

    - groups: (n,) int64.
    - key: random key for the choice within each group.
    """
    places = [(groups == group).nonzero().flatten() for group in groups.unique().tolist()]
    least = min(map(len, places))
    drawn = [own[rng.permutation(rng.fold(key, number), len(own))[:least]] for number, own in enumerate(places)]
    return torch.cat(drawn).sort().values


class RWG(ERM):
    """Cross-entropy on images drawn with replacement, with all occurring groups equally likely."""

    requires = frozenset({"groups"})

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing)

    def build(self, context: Context) -> None:
        """Make the network, and compute the sampling weights from the groups."""
        self.weights = inverse_frequency(train_groups(context.data, self)[context.data.train_indices])
        super().build(context)

    def _train_loader(self, context: Context) -> Loader:
        return context.data.loader(
            batch_size=context.batch_size, views=("weak",), purpose="train", weights=self.weights
        )


class SUBG(ERM):
    """Cross-entropy on a fixed subsample with as many images of each group as the smallest one has.

    An epoch is one pass over the subsample; the other images are never used.
    """

    requires = frozenset({"groups"})

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing)

    def build(self, context: Context) -> None:
        """Choose the images by the seed, and make the network."""
        groups = train_groups(context.data, self)[context.data.train_indices]
        self.indices = context.data.train_indices[balanced_choice(groups, key=rng.fold(context.seed, "subg"))]
        super().build(context)

    def _train_loader(self, context: Context) -> Loader:
        return context.data.loader(self.indices, batch_size=context.batch_size, views=("weak",), purpose="train")
