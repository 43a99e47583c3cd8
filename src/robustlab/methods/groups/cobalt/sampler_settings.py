"""Hyperparameters of CoBalT apart from concept discovery: training of stage 1 and sampling in stage 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustlab.core.checks import at_least, choose, within
from robustlab.core.errors import ConfigError


@dataclass(frozen=True)
class DiscoverSettings:
    """Training of stage 1, with Adam and L2 regularisation (its weight decay is not decoupled).

    - epochs: epochs of stage 1, before trainer.epochs of the classifier.
    - batch_size: null for trainer.batch_size.
    - warmup: share of the updates over which the learning rate rises linearly; it is constant afterwards.
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


@dataclass(frozen=True)
class SamplerSettings:
    """Weighting of labels within a concept, and limits on the weights.

    An image left without any concept joins the nearest kept one.

    - kind: "stepwise" is Algorithm 1, "fitted" balances the labels of all concepts at once, see `fitted`.
    - exponent: lambda of Algorithm 1, which can be read in two ways, see `eta`.
    - parametrisation: "class" draws a label of concept k with weight n[k, y]^-lambda; "image" gives each image of
      concept k that weight.
    - tolerance: a fit ends once the labels of every concept are this close to uniform, in total variation.
    - iterations: number of rounds after which a fit gives up on the concept furthest from uniform.
    - rare_count, rare_share: drop concepts with fewer images, or a smaller share of all images: each of their few
      images would take up a large part of all draws.
    - drop_single_class: also drop concepts that occur with a single label.
    - max_ratio: upper bound on how often an image is drawn, as a multiple of uniform sampling; null for no bound.
    """

    kind: Literal["stepwise", "fitted"] = "stepwise"
    parametrisation: Literal["class", "image"] = "class"
    exponent: float = 0.0
    tolerance: float = 1e-3
    iterations: int = 1000
    rare_count: int = 20
    rare_share: float = 0.002
    drop_single_class: bool = False
    max_ratio: float | None = 100.0

    def __post_init__(self) -> None:
        choose("sampler.kind", self.kind, ("stepwise", "fitted"))
        choose("sampler.parametrisation", self.parametrisation, ("class", "image"))
        at_least("sampler.tolerance", self.tolerance, 0, above=True)
        at_least("sampler.iterations", self.iterations, 1)
        at_least("sampler.rare_count", self.rare_count, 0)
        at_least("sampler.rare_share", self.rare_share, 0)
        if self.max_ratio is not None:
            at_least("sampler.max_ratio", self.max_ratio, 1)
        if self.kind == "fitted" and (self.exponent, self.parametrisation) != (0.0, "class"):
            raise ConfigError(
                "method.sampler.kind=fitted has no exponent: it makes the labels of every concept equally likely; "
                "leave out method.sampler.exponent and parametrisation, or set method.sampler.kind=stepwise"
            )

    @property
    def eta(self) -> float | None:
        """The exponent in q_k(y) ~ n[k, y]^-eta: lambda for class weights, lambda - 1 for image weights.

        0 makes all labels of a concept equally likely; larger values favour its rare labels. None if fitted.
        """
        if self.kind == "fitted":
            return None
        return self.exponent if self.parametrisation == "class" else self.exponent - 1
