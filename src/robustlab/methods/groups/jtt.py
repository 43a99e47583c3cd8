"""JTT: just train twice (Liu et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.core.checks import at_least, choose
from robustlab.core.console import warn
from robustlab.data.dataset import Batch
from robustlab.data.run_data import Data
from robustlab.data.serving.loader import Loader
from robustlab.engine.inference import eval_logits, train_predictions
from robustlab.engine.method import Context, Position, Stage, settings
from robustlab.engine.shared_batch import weighted, whole
from robustlab.methods.erm import ERM
from robustlab.metrics.group_accuracy import group_of

IDENTIFY, TRAIN = "identify", "train"
FEW_ERRORS = 0.001
"""Share of errors below which the second stage hardly differs from ERM."""


@dataclass(frozen=True)
class IdentificationSettings:
    """Settings of the first stage.

    - epochs: T, its number of epochs.
    - errors: collect the errors after the last epoch, or from the predictions made during it.
    - batch_size: batch size of the pass that collects errors after the epoch.
    """

    epochs: int = 1
    errors: Literal["after", "during"] = "after"
    batch_size: int = 1000

    def __post_init__(self) -> None:
        at_least("identification.epochs", self.epochs, 1)
        choose("identification.errors", self.errors, ("after", "during"))
        at_least("identification.batch_size", self.batch_size, 1)


class JTT(ERM):
    """Trains with ERM for T epochs, then from scratch on the training set plus `up_weight` extra copies of each error.

    Errors are the training images that the first network, "identification", misclassifies after its last epoch, in eval
    mode and without augmentation; or, as in the official code, `during` that epoch: according to the training-mode
    prediction on the augmented image before the update on its batch. Each error is seen up_weight + 1 times per epoch
    of the second stage, with independent augmentations. Both stages use the configured optimizer; with weak
    regularisation the first one may fit everything, so that no errors are left to upweight, which raises a warning.

    - identification: settings of the first stage.
    - up_weight: number of extra copies of each error.
    """

    predictors: ClassVar[tuple[str, ...] | None] = ("network",)

    def __init__(
        self,
        *,
        identification: IdentificationSettings | None = None,
        up_weight: int = 50,
        label_smoothing: float = 0.0,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing)
        at_least("up_weight", up_weight, 0)
        self.identification = settings(IdentificationSettings, identification)
        self.up_weight = up_weight
        self.errors: Tensor | None = None
        self.wrong: Tensor | None = None
        """Samples misclassified so far in the last epoch of the first stage, (num_train,) bool."""

    def build(self, context: Context) -> None:
        """Make both networks; the second one is made again, with its real schedule, once the errors are known."""
        self.context, data = context, context.data
        self.first_loader = data.loader(batch_size=context.batch_size, views=("weak",), purpose=IDENTIFY)
        self.learners = {
            "identification": context.new_learner(
                "identification", epochs=self.identification.epochs, steps_per_epoch=len(self.first_loader)
            )
        }
        if self.identification.errors == "during":
            self.wrong = torch.zeros(data.num_train, dtype=torch.bool, device=context.runtime.device)
        self._make_second(None)

    def _make_second(self, errors: Tensor | None) -> None:
        """Make the second network and its loader.

        - errors: stable indices of the errors, int64; None before they are known.
        """
        context, indices = self.context, self.context.data.train_indices
        self.errors = errors
        if errors is not None:
            indices = torch.cat([indices, errors.repeat(self.up_weight)])
        self.second_loader = context.data.loader(
            indices, batch_size=context.batch_size, views=("weak",), purpose="train"
        )
        self.learners["network"] = context.new_learner(
            "network", epochs=context.epochs, steps_per_epoch=len(self.second_loader)
        )

    def stages(self) -> Sequence[Stage]:
        """Return the two stages; the first one is not evaluated."""
        first = Stage(IDENTIFY, self.identification.epochs, evaluated=False, learners=("identification",))
        return [first, Stage(TRAIN, self.context.epochs, learners=("network",))]

    def _loader(self, stage: Stage) -> Loader:
        return self.first_loader if stage.name == IDENTIFY else self.second_loader

    def steps_per_epoch(self, stage: Stage, epoch: int) -> int:
        """Return the number of batches per epoch; for the second stage it is only known after the first."""
        return len(self._loader(stage))

    def batches(self, stage: Stage, epoch: int, start: int) -> Iterator[Any]:
        """Yield the stage's batches."""
        return self._loader(stage).epoch(epoch, start=start)

    def train_step(self, item: Batch, position: Position) -> Mapping[str, Tensor]:
        """Run one cross-entropy step of the stage's network; return {"loss", "accuracy"}."""
        assert item.targets is not None
        learner = self.learners["identification" if position.stage == IDENTIFY else "network"]
        learner.network.train()
        with self.context.runtime.autocast():
            logits = learner(item.images).float()
            loss = F.cross_entropy(logits, item.targets, label_smoothing=self.label_smoothing)
        right = logits.argmax(dim=1) == item.targets
        if self.wrong is not None and position.stage == IDENTIFY and position.epoch + 1 == self.identification.epochs:
            runtime = self.context.runtime
            index = whole(item.index, item.total, runtime=runtime)
            self.wrong[index] = whole(~right, item.total, runtime=runtime)
        means = {"loss": loss, "accuracy": right.float().mean()}
        scalars = weighted(means, item, runtime=self.context.runtime)
        learner.step(scalars["loss"])
        return {name: value.detach() for name, value in scalars.items()}

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """After the last epoch of the first stage collect the errors and report them."""
        return self._identify() if stage.name == IDENTIFY and epoch + 1 == stage.epochs else {}

    def _identify(self) -> dict[str, float]:
        data, runtime, indices = self.context.data, self.context.runtime, self.context.data.train_indices
        wrong = self._wrong_after() if self.wrong is None else self.wrong.cpu()
        errors = indices[wrong[indices]]
        errors = runtime.gather(errors)[0]  # on GPUs, ranks may differ in the last bits
        self._make_second(errors)
        share = len(errors) / len(indices)
        if share < FEW_ERRORS:
            warn(
                f"JTT's first network misclassifies {len(errors)} of {len(indices):,} training images "
                f"({100 * share:.2f} %), so the second stage hardly differs from ERM; lower "
                f"method.identification.epochs, or raise optimizer.weight_decay and lower optimizer.lr"
            )
        return {"jtt/errors": float(len(errors)), "jtt/error_share": share, **minority_found(data, errors)}

    def _wrong_after(self) -> Tensor:
        """Return the samples that the first network currently misclassifies, (num_train,) bool on the CPU."""
        data, runtime = self.context.data, self.context.runtime

        def predict(images: Tensor) -> dict[str, Tensor]:
            return {"": eval_logits(self.learners["identification"], images, runtime=runtime, averaged=False)}

        return train_predictions(data, predict, batch_size=self.identification.batch_size)[""] != data.assigned

    def state_dict(self) -> dict[str, Any]:
        """Return the stable indices of the errors (None before they are known) and the errors seen so far."""
        return {"errors": self.errors, "wrong": self.wrong}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, and the second network's schedule."""
        if self.wrong is not None:
            self.wrong.copy_(state["wrong"])
        if state["errors"] is not None:
            reached = self.learners["network"].state_dict()
            self._make_second(state["errors"].cpu())
            self.learners["network"].load_state_dict(reached)


def minority_found(data: Data, errors: Tensor) -> dict[str, float]:
    """Return the recall and precision of the errors as a detector of minority samples, for analysis only.

    The minority of a class are the samples without its most frequent attribute. Empty if attributes are unknown or
    there is no minority.

    - errors: stable indices, int64.
    """
    attributes = data.attributes("train")
    if attributes is None:
        return {}
    groups = group_of(data.labels("train"), attributes, num_attributes=data.task.num_attributes)
    counts = torch.bincount(groups, minlength=data.task.num_groups).view(data.task.num_classes, -1)
    majority = counts == counts.amax(dim=1, keepdim=True)
    minority = ~majority.flatten()[groups]
    if not minority.any():
        return {}
    found = torch.isin(data.train_indices, errors) & minority
    values = {"jtt/minority_recall": float(found.sum() / minority.sum())}
    return values | ({"jtt/minority_precision": float(found.sum() / len(errors))} if len(errors) else {})
