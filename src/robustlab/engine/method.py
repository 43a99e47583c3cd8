"""`Method`: the contract of training methods: what is trained, in which stages, on which batches, how it predicts."""

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

    - evaluated: whether epochs end with an evaluation that selection rules may choose; False without a classifier yet.
    - observed: whether diagnostics measure its epochs; by default if it is evaluated.
    - learners: names of the learners that are trained and whose schedules advance; None for all.
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
    """The position of a step, counted from zero.

    A *step* is one call of `train_step`: forward and backward of one micro-batch, one item of `batches`. An *update* is
    one call of a learner's optimizer, after `trainer.accumulate` of its steps (fewer at the end of an epoch).

    - step, global_step: index of the step within the epoch, and within the whole run.
    """

    stage: str
    epoch: int
    step: int
    global_step: int


@dataclass(frozen=True)
class Context:
    """The surroundings that a method is built from.

    `new_learner(name, epochs=..., steps_per_epoch=...)` makes a `Learner` initialised from (seed, "init", name):

    - epochs: number of epochs it is trained for.
    - steps_per_epoch: calls of `Learner.step` in each epoch, one number or one per epoch; the schedule needs it.
    - wrap: network -> network, e.g. to add parts around a backbone.
    - optimizer: parameters -> optimizer, instead of the configured one.
    - scheduler: optimizer -> scheduler, instead of the configured one; None for no scheduler.
    - interval: "epoch" or "step" (an update), instead of the configured one.
    """

    task: TaskSpec
    data: Data
    runtime: Runtime
    seed: int
    epochs: int
    batch_size: int
    new_learner: Callable[..., Learner]


class Method(ABC):
    """Base class of all methods. Hyperparameters are arguments of `__init__`; a simple method only defines `loss`.

    If there is a moving average of the weights (`trainer.ema_decay`), it makes the predictions and is measured by
    diagnostics, but training must not depend on it: targets and selections are derived from `Learner.network`, as in
    papers that use no average.

    The engine calls `build` once and then, for each stage and epoch, `batches`, `train_step` for each item it yields,
    and `end_epoch`. On resume, `load_state_dict` follows `build`, and `batches` starts at the step where the run
    stopped: whatever an epoch needs beyond the current item belongs in `state_dict`.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    """Properties that the data must provide, e.g. {"clean_labels"}; checked before training."""

    surrogate_min_count: int = 5
    """Surrogate groups with fewer validation samples are too noisy to count as the worst group (CoBalT)."""

    predictors: ClassVar[tuple[str, ...] | None] = None
    """Names of the learners that predict, whose weights are kept for selection rules; None for all."""

    single_process: ClassVar[str | None] = None
    """Why the method cannot share a batch between processes, so that several are refused; None if it can."""

    not_extendable: ClassVar[str | None] = None
    """Why a finished run cannot be extended, e.g. because its penalty follows a schedule over all epochs; None if it
    can, provided that it has one stage."""

    projection_dim: int | None = None
    """Width of the projection head that the method needs on its networks; None for none."""

    learners: dict[str, Learner]
    context: Context

    def build(self, context: Context) -> None:
        """Create `self.learners` and everything else that depends on the data. Default: one learner, "network"."""
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
        """Return name -> learner for the learners that a stage trains."""
        return {
            name: learner for name, learner in self.learners.items() if stage.learners is None or name in stage.learners
        }

    def _train_loader(self, context: Context):
        return context.data.loader(batch_size=context.batch_size, views=("weak",), purpose="train")

    def steps_per_epoch(self, stage: Stage, epoch: int) -> int:
        """Return the number of steps in an epoch: how many items `batches` yields from `start=0`."""
        return len(self._train_loader(self.context))

    def batches(self, stage: Stage, epoch: int, start: int) -> Iterator[Any]:
        """Yield the items of an epoch from step `start`. Default: batches of the "weak" view of the train split."""
        return self._train_loader(self.context).epoch(epoch, start=start)

    def train_step(self, item: Any, position: Position) -> Mapping[str, Tensor]:
        """Run one step; return scalars to log, on the device; "loss" is required and watched for NaN by the engine."""
        learner = self.learners["network"]
        learner.network.train()
        with self.context.runtime.autocast():
            scalars = weighted(self._usable(self.loss(item, position)), item, runtime=self.context.runtime)
        learner.step(scalars["loss"])
        return {name: value.detach() for name, value in scalars.items()}

    def _usable(self, returned: Any) -> Mapping[str, Tensor]:
        """Return the result of `loss`. Raises ConfigError if it cannot be used for a step."""
        problem = _loss_problem(returned)
        if problem is None:
            return returned
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        raise ConfigError(f"{name}: loss() must return {{'loss': <a scalar tensor with a gradient>, ...}}; {problem}")

    def loss(self, batch: Any, position: Position) -> Mapping[str, Tensor]:
        """Return {"loss": ..., more scalars to log}; only for methods that keep the default `train_step`.

        Each scalar is a mean over the rows of the batch. With several processes, each has a share of the rows, by which
        `train_step` weights the scalars; if rows of a batch interact, see `methods.ranks.whole`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define loss() or train_step()")

    def end_epoch(self, stage: Stage, epoch: int) -> Mapping[str, float]:
        """Return diagnostics of the epoch that just ended, e.g. {"diagnostics/beta_wrong": 0.8}."""
        return {}

    def remarks(self, final: Mapping[str, float], stage_ends: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
        """Return warnings about a finished run for the summary, a sentence or two each.

        - final: last value of every metric and diagnostic.
        - stage_ends: stage -> metrics of the evaluation after its last epoch.
        """
        return []

    def finish(self, folder: Path) -> Mapping[str, Path]:
        """Write artifacts and figures into the run folder after training; return {name: PNG file} to be tracked.

        Called once, on rank 0, after the last evaluation.
        """
        return {}

    @abstractmethod
    def predict(self, images: Tensor) -> Tensor:
        """Return logits, (B, num_classes) float, for (B, C, H, W) float images, in eval mode without gradients."""

    def predictions(self, images: Tensor) -> dict[str, Tensor]:
        """Return named logits to evaluate: "" for `predict`, other names for parts of the method, e.g. "network1"."""
        return {"": self.predict(images)}

    def label_owners(self) -> Mapping[str, Tensor]:
        """Return part of `predictions` -> indices whose labels it was trained on, int64 on the CPU.

        Empty if all parts are trained on all labels.
        """
        return {}

    def surrogate_groups(self, split: str) -> Tensor | None:
        """Return a substitute for attributes: (n, N) integers, up to N concepts per sample, padded with -1.

        Rows are in the order of `Data.evaluation(split)`. A concept and a label form an inferred group; the selection
        rule `ig` uses the worst inferred group's validation accuracy. None: the method has no concepts.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the method's own state, tensors and plain types only; the engine saves the learners."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 a method without state has none to load
        """Restore the state that `state_dict` returned."""


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
    """Turn a nested group of a method's YAML into its settings dataclass, with its defaults for missing keys.

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
