"""Hyperparameters of CoBalT beside those of concept discovery and of the sampler."""

from __future__ import annotations

from dataclasses import dataclass

from robustlab.methods.checks import at_least, within


@dataclass(frozen=True)
class DiscoverSettings:
    """How stage 1 is trained: by Adam, whose weight decay is a penalty on squared weights in the gradient.

    epochs: of stage 1, before trainer.epochs of the classifier. batch_size: null = trainer.batch_size. warmup: share of
    the updates in which the learning rate rises linearly; after that it is constant.
    """

    epochs: int = 50
    batch_size: int | None = None
    lr: float = 2e-4
    weight_decay: float = 5e-4
    warmup: float = 0.0

    def __post_init__(self) -> None:
        at_least("discover.epochs", self.epochs, 1)
        if self.batch_size is not None:
            at_least("discover.batch_size", self.batch_size, 2)
        at_least("discover.lr", self.lr, 0, above=True)
        at_least("discover.weight_decay", self.weight_decay, 0)
        within("discover.warmup", self.warmup, 0, 1)
