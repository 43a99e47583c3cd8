"""`Method`: what is trained, in which stages, on which batches, and how it predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.engine.shared_batch import weighted

if TYPE_CHECKING:
    from robustlab.core.runtime import Runtime
    from robustlab.data.dataset import TaskSpec
    from robustlab.data.run_data import Data
    from robustlab.engine.learner import Learner

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A named part of a run with its own number of epochs.

    - evaluated: whether epochs end with an evaluation that selection rules may choose; False while nothing can predict.
    - observed: whether diagnostics look at its epochs; by default where it is evaluated.
    - learners: names of those that it trains, whose schedules advance; None = all.
    """

    name: str
    epochs: int
    evaluated: bool = True
    learners: tuple[str, ...] | None = None
    observed: bool | None = None

    @property
    def is_observed(self) -> bool:
        """Whether diagnostics look at its epochs."""
        return self.evaluated if self.observed is None else self.observed


@dataclass(frozen=True)
class Position:
    """Where a step stands: `step` counts within the epoch, `global_step` over the whole run, all from zero."""

    stage: str
    epoch: int
    step: int
    global_step: int


@dataclass(frozen=True)
class Context:
    """What a method is built from.

    `new_learner(name, epochs=, steps_per_epoch=)` makes a `Learner` initialised from (seed, "init", name).
    steps_per_epoch: calls of `Learner.step` in each epoch, a number or one for each; the schedule follows from it. It
    takes, too, wrap: network -> network, e.g. to put parts around a backbone; and in place of what the configuration
    says, optimizer: parameters -> optimizer; scheduler: optimizer -> scheduler, or None for none; interval: epoch or
    step.
    """

    task: TaskSpec
    data: Data
    runtime: Runtime
    seed: int
    epochs: int
    batch_size: int
    new_learner: Callable[..., Learner]


class Method(ABC):
    """Base of all methods. Hyperparameters are keyword arguments of `__init__`; a simple method writes only `loss`.

    A moving average of the weights (`trainer.ema_decay`) is what predicts, and what diagnostics measure. Training must
    not depend on it: what a method derives targets or choices from is `Learner.network`, as in papers that have no
    average.

    The engine calls `build` once, then for each stage and epoch `batches`, `train_step` for each item that it yields,
    and `end_epoch`. On resume, `load_state_dict` comes after `build`, and `batches` starts at the
    step where the run stood: what an epoch needs beyond the item at hand belongs into `state_dict`.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    """What the data must provide, e.g. {"clean_labels"}; checked before training."""

    surrogate_min_count: int = 5
    """Surrogate groups with fewer validation samples are too noisy to be the worst (CoBalT)."""

    predictors: ClassVar[tuple[str, ...] | None] = None
    """Names of the learners that predict, whose weights are kept for selection rules; None = all."""

    single_process: ClassVar[str | None] = None
    """Why the method cannot share a batch with other processes, which are then refused; None = it can."""

    not_extendable: ClassVar[str | None] = None
    """Why a run cannot be given more epochs when it has ended, e.g. since its penalty follows a schedule over all of
    them; None = it can, as long as it has one stage."""

    projection_dim: int | None = None
    """Width of the projection head that the method needs on its networks; None = none."""

    learners: dict[str, Learner]
    context: Context

    def build(self, context: Context) -> None:
        """Create `self.learners` and whatever else depends on the data. The default makes one, called "network"."""
        self.context = context
        self.learners = {
            "network": context.new_learner(
                "network", epochs=context.epochs, steps_per_epoch=len(self._train_loader(context))
            )
        }

    def stages(self) -> Sequence[Stage]:
        """Return the stages in order. Default: one stage of `context.epochs` epochs."""
        return [Stage("train", self.context.epochs)]

    def trained(self, stage: Stage) -> dict[str, Learner]:
        """Return the learners that a stage trains, by name."""
        return {
            name: learner for name, learner in self.learners.items() if stage.learners is None or name in stage.learners
        }

    def _train_loader(self, context: Context):
        return context.data.loader(batch_size=context.batch_size, views=("weak",), purpose="train")

    def steps_per_epoch(self, stage: Stage, epoch: int) -> int:
        """Return how many items `batches` yields in an epoch (from its start)."""
        return len(self._train_loader(self.context))

    def batches(self, stage: Stage, epoch: int, start: int) -> Iterator[Any]:
        """Yield the items of an epoch from step `start`. Default: batches of the "weak" view of the train split."""
        return self._train_loader(self.context).epoch(epoch, start=start)

    def train_step(self, item: Any, position: Position) -> Mapping[str, Tensor]:
        """Do one step on one item of `batches`; return scalars to log, on the device, without synchronising.

        The key "loss" must be there: the engine watches it for NaN.
        """
        learner = self.learners["network"]
        learner.network.train()
        with self.context.runtime.autocast():
            scalars = weighted(self._usable(self.loss(item, position)), item, runtime=self.context.runtime)
        learner.step(scalars["loss"])
        return {name: value.detach() for name, value in scalars.items()}

    def _usable(self, returned: Any) -> Mapping[str, Tensor]:
        """Return what `loss` gave. Raises ConfigError where a step cannot be made of it."""
        problem = _loss_problem(returned)
        if problem is None:
            return returned
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        raise ConfigError(f"{name}: loss() must return {{'loss': <a scalar tensor with a gradient>, ...}}; {problem}")

    def loss(self, batch: Any, position: Position) -> Mapping[str, Tensor]:
        """Return {"loss": ..., more scalars to log}; only for methods that keep the default `train_step`.

        Each is a mean over the rows of the batch. Of several processes each has a share of the rows, and `train_step`
        weights what it returns by that; where rows of a batch meet, see `methods.ranks.whole`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define loss() or train_step()")

    def end_epoch(self, stage: Stage, epoch: int) -> Mapping[str, float]:
        """Return diagnostics of the epoch that has just ended, e.g. {"diagnostics/beta_wrong": 0.8}."""
        return {}

    def remarks(self, final: Mapping[str, float], stage_ends: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
        """Return warnings about a finished run that its numbers justify, each a sentence or two for the summary.

        final: the last value of every metric and diagnostic. stage_ends: by stage, the evaluation after its last epoch.
        """
        return []

    def finish(self, folder: Path) -> Mapping[str, Path]:
        """Write artifacts and pictures into the run folder when training is over; return {name: PNG} to be tracked.

        Called once, on rank 0, after the last evaluation.
        """
        return {}

    @abstractmethod
    def predict(self, images: Tensor) -> Tensor:
        """Return logits float [B, num_classes] for float images [B, C, H, W]; networks in eval mode, no gradient."""

    def predictions(self, images: Tensor) -> dict[str, Tensor]:
        """Return named logits to evaluate; "" is what `predict` gives, other names are parts, e.g. "network1"."""
        return {"": self.predict(images)}

    def label_owners(self) -> Mapping[str, Tensor]:
        """Return by the name of a part of `predictions` the indices, int64 on the CPU, whose labels it was trained on.

        Empty where all parts are trained on all labels.
        """
        return {}

    def surrogate_groups(self, split: str) -> Tensor | None:
        """Return what stands in for attributes: integers [n, N], the up to N concepts of each sample, -1 for none.

        Rows are in the order of `Data.evaluation(split)`. With a label, a concept makes an inferred group; their least
        accuracy on the validation split is what the selection rule `ig` goes by. None: the method has no concepts.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the method's own state (learners are saved by the engine): tensors and plain types only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 a method without state has none to load
        """Take back what `state_dict` gave."""


def _loss_problem(returned: Any) -> str | None:
    if not isinstance(returned, Mapping):
        return f"it returned {returned!r}"[:200]
    if "loss" not in returned:
        return f"there is no 'loss' among {', '.join(map(repr, returned)) or 'its keys'}"
    for name, value in returned.items():
        if not isinstance(value, Tensor):
            return f"{name!r} is {value!r}, which is a {type(value).__name__} and not a tensor"[:200]
        if value.numel() != 1:
            return f"{name!r} has the shape {tuple(value.shape)}; take its mean"
    return None if returned["loss"].requires_grad else "'loss' has no gradient: it does not depend on the network"


def settings(cls: type[T], values: Mapping[str, Any] | T | None) -> T:
    """Turn a nested group of a method's YAML into its settings dataclass; missing keys take the dataclass's default.

    Unknown keys are reported by the configuration check before any method is built, and raise `TypeError` here.
    """
    if values is None:
        return cls()
    if isinstance(values, cls):
        return values
    assert isinstance(values, Mapping)
    unknown = set(values) - {field.name for field in fields(cls)}  # type: ignore[arg-type]
    if unknown:
        raise TypeError(f"{cls.__name__} has no setting {', '.join(sorted(map(str, unknown)))}")
    return cls(**{str(name): value for name, value in values.items()})
