"""DFR: deep feature reweighting (Kirichenko, Izmailov, Wilson, ICLR 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.core import rng
from robustlab.core.checks import at_least, choose
from robustlab.core.errors import ConfigError
from robustlab.data.told_groups import split_groups
from robustlab.engine.method import Context, Position, Stage
from robustlab.methods.erm import ERM
from robustlab.methods.groups.reweighting import balanced_choice
from robustlab.metrics import group_accuracy as group_metrics

if TYPE_CHECKING:
    from robustlab.core.runtime import Runtime
    from robustlab.engine.learner import Learner

TRAIN, REWEIGHT = "train", "reweight"
RETRAINS = {"val": 20, "train": 10}
"""Number of balanced draws whose classifiers are averaged, per split (official code)."""
ABSENT = -100.0
"""Logit of a class that is missing from the drawn samples."""


class DFR(ERM):
    """Trains with ERM, then refits the last layer on group-balanced draws.

    The last layer becomes an L1-regularised logistic regression on standardised features. Their mean and deviation come
    from the training split, except that for "val" the choice of C uses those of the fitted samples (official code). The
    inverse regularisation strength C is the one with the best worst-group accuracy: for "val" on one half of the
    validation split after a fit on the other half, for "train" on the validation split.

    - split: where the draws come from. "val": as published; validation accuracies of the run are then measured on
      fitted samples. "train": the variant whose fit needs no additional labels.
    - retrains: number of draws whose coefficients are averaged; None means 20 for "val" and 10 for "train".
    - strengths: candidates for C.
    - batch_size: batch size of the passes that compute features.
    """

    requires = frozenset({"groups"})

    def __init__(
        self,
        *,
        split: Literal["val", "train"] = "val",
        retrains: int | None = None,
        strengths: Sequence[float] = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
        batch_size: int = 1000,
        label_smoothing: float = 0.0,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing)
        choose("split", split, tuple(RETRAINS))
        if retrains is not None:
            at_least("retrains", retrains, 1)
        if not strengths or min(strengths) <= 0:
            raise ConfigError(f"method.strengths is {list(strengths)}; it must hold numbers above 0")
        self.split, self.retrains, self.strengths = split, retrains, list(strengths)
        self.batch_size = batch_size
        self.strength: float | None = None
        self.fitted = 0

    def build(self, context: Context) -> None:
        """Make the network. Raises `ConfigError` if there are no validation samples with groups."""
        split_groups(context.data, "val", self)
        super().build(context)
        layer = _last_layer(self.learners["network"].network)
        # weights, with biases in the last column
        self.sum = torch.zeros(layer.out_features, layer.in_features + 1, dtype=torch.float64)

    def stages(self) -> Sequence[Stage]:
        """Return ERM's stage, which is not evaluated, and a stage of one epoch whose steps are the fits."""
        train = Stage(TRAIN, self.context.epochs, evaluated=False, observed=True)
        return [train, Stage(REWEIGHT, 1, learners=(), observed=False)]

    def steps_per_epoch(self, stage: Stage, epoch: int) -> int:
        """Return the number of batches, or of fits."""
        if stage.name == TRAIN:
            return super().steps_per_epoch(stage, epoch)
        return self.retrains or RETRAINS[self.split]

    def batches(self, stage: Stage, epoch: int, start: int) -> Iterator[Any]:
        """Yield batches, or for each fit the positions of a balanced draw from the split, int64."""
        if stage.name == TRAIN:
            yield from super().batches(stage, epoch, start)
            return
        self._prepare()
        key = rng.fold(self.context.seed, "dfr")
        for draw in range(start, self.steps_per_epoch(stage, epoch)):
            yield balanced_choice(self.groups, key=rng.fold(key, draw))

    def _prepare(self) -> None:
        """Compute the features to fit on, and choose C; repeated when a run is resumed between fits."""
        data = self.context.data
        train = self._features("train")
        self.mean, self.deviation = self.context.runtime.gather(_scale(train))[0]  # on GPUs, ranks may differ a little
        self.features = self._standardised(train if self.split == "train" else self._features("val"))
        self.groups = split_groups(data, self.split, self)
        self.labels = data.labels(self.split)
        if self.strength is None:
            self.strength = self._choose()

    def _features(self, split: str) -> Tensor:
        """Return the classifier's inputs, (n, F) float64 on the CPU, in the order of `Data.evaluation(split)`."""
        learner, runtime = self.learners["network"], self.context.runtime
        loader = self.context.data.evaluation(split, self.batch_size)
        return torch.cat([features(learner, batch.images, runtime=runtime) for batch in loader.epoch(0)])

    def _standardised(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.deviation

    def _choose(self) -> float:
        """Return the C with the best worst-group accuracy on samples that it was not fitted on; the first of ties."""
        key = rng.fold(self.context.seed, "dfr strength")
        if self.split == "val":
            order = rng.permutation(rng.fold(key, "halves"), len(self.labels))
            scored, half = order[: len(order) // 2], order[len(order) // 2 :]
            fitted = half[balanced_choice(self.groups[half], key=key)]
            mean, deviation = _scale(self.features[fitted])
            values = (self.features - mean) / deviation
            tests = values[scored], self.labels[scored], self.groups[scored]
        else:
            fitted = balanced_choice(self.groups, key=key)
            data, values = self.context.data, self.features
            tests = self._standardised(self._features("val")), data.labels("val"), split_groups(data, "val", self)
        worst = [
            _worst_group(self._fit(values[fitted], self.labels[fitted], strength), *tests)
            for strength in self.strengths
        ]
        best = self.strengths[worst.index(max(worst))]
        return self.context.runtime.gather(best)[0]

    def _fit(self, values: Tensor, labels: Tensor, strength: float) -> Tensor:
        return logistic_regression(
            values,
            labels,
            num_classes=self.context.task.num_classes,
            strength=strength,
            seed=rng.fold(self.context.seed, "dfr fit") % 2**31,
        )

    def train_step(self, item: Any, position: Position) -> Mapping[str, Tensor]:
        """Run a step of ERM, or fit a classifier on a draw and install the mean of all fits so far in the network."""
        if position.stage == TRAIN:
            return super().train_step(item, position)
        assert self.strength is not None
        fitted = self._fit(self.features[item], self.labels[item], self.strength)
        logits = _logits(fitted, self.features[item])
        self.sum = self.sum + self.context.runtime.gather(fitted)[0]
        self.fitted += 1
        self._install(self.sum / self.fitted)
        return {"loss": F.cross_entropy(logits, self.labels[item]).float()}

    @torch.no_grad()
    def _install(self, classifier: Tensor) -> None:
        """Write a classifier of standardised features into the network's last layer, which sees raw features."""
        weight = classifier[:, :-1] / self.deviation
        bias = classifier[:, -1] - weight @ self.mean
        learner = self.learners["network"]
        for network in (learner.network, learner.inference_network):
            layer = _last_layer(network)
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Return of the fits "dfr/strength", "dfr/samples" in each and "dfr/weights_used", not 0."""
        if stage.name == TRAIN:
            return {}
        assert self.strength is not None
        counts = torch.bincount(self.groups)
        used = (self.sum[:, :-1] != 0).double().mean()
        samples = float(counts[counts > 0].min() * (counts > 0).sum())
        return {"dfr/strength": self.strength, "dfr/samples": samples, "dfr/weights_used": float(used)}

    def state_dict(self) -> dict[str, Any]:
        """Return the chosen C, and the sum and number of classifiers so far."""
        return {"strength": self.strength, "sum": self.sum, "fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.strength, self.sum, self.fitted = state["strength"], state["sum"].cpu(), state["fitted"]


def _last_layer(network: nn.Module) -> nn.Linear:
    layer = network.classifier
    assert isinstance(layer, nn.Linear)
    return layer


def _scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column of (n, F) float64, with zero deviations replaced by 1."""
    deviation = values.std(dim=0, correction=0)
    return values.mean(dim=0), torch.where(deviation > 0, deviation, 1.0)


def features(learner: Learner, images: Tensor, *, runtime: Runtime) -> Tensor:
    """Return pooled features of a learner's inference network in eval mode, (B, F) float64 on the CPU."""
    network = learner.inference_network.eval()
    with torch.no_grad(), runtime.autocast():
        values = network.features(images)  # type: ignore[operator]
    return values.double().cpu()


def logistic_regression(features: Tensor, labels: Tensor, *, num_classes: int, strength: float, seed: int) -> Tensor:
    """Return the weights of an L1-regularised logistic regression, (C, F + 1) float64, with biases in the last column.

    With two classes, each gets half the logit, with opposite signs; with more, the fit is one-vs-rest (liblinear).

    - features: (n, F) float64.
    - labels: (n,) int64.
    - strength: scikit-learn's C, the inverse of the regularisation strength.
    """
    from sklearn.linear_model import LogisticRegression

    # scikit-learn 1.8 replaced the name of the penalty by a mixing ratio
    penalty: dict[str, Any] = {"l1_ratio": 1.0} if LogisticRegression().penalty == "deprecated" else {"penalty": "l1"}
    inputs = features.numpy()
    fitted = torch.zeros(num_classes, features.shape[1] + 1, dtype=torch.float64)
    fitted[:, -1] = ABSENT
    for label in [1] if num_classes == 2 else labels.unique().tolist():
        model = LogisticRegression(**penalty, C=strength, solver="liblinear", random_state=seed, max_iter=1000)
        model.fit(inputs, (labels == label).numpy())
        fitted[label] = torch.from_numpy(np.append(np.asarray(model.coef_)[0], np.asarray(model.intercept_)[0]))
    if num_classes == 2:
        fitted = torch.stack([-fitted[1], fitted[1]]) / 2
    return fitted


def _logits(classifier: Tensor, values: Tensor) -> Tensor:
    return values @ classifier[:, :-1].T + classifier[:, -1]


def _worst_group(classifier: Tensor, values: Tensor, labels: Tensor, groups: Tensor) -> float:
    correct = _logits(classifier, values).argmax(dim=1) == labels
    found = group_metrics.accuracy_by_group(correct, groups, num_groups=int(groups.max()) + 1)
    return float(found.accuracy[group_metrics.worst(found)])
