"""Evaluate a method on a split: overall, and per class, group and inferred group where those are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.data.serving.loader import Loader
from robustlab.engine.method import Method
from robustlab.metrics import group_accuracy as groups
from robustlab.metrics.intervals import wilson_interval

if TYPE_CHECKING:
    from torchmetrics import MeanMetric, MetricCollection

TOP5_CLASSES = 20
"""With at least this many classes, top-5 accuracy is reported next to top-1."""


def _metrics(num_classes: int, device: torch.device) -> MetricCollection:
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy

    collection = {"accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
    if num_classes >= TOP5_CLASSES:
        collection["accuracy_top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, validate_args=False)
    return MetricCollection(dict(collection)).to(device)


class Outcomes:
    """Collects which samples of a split were predicted correctly; tensors stay on the device until `gathered`."""

    def __init__(self) -> None:
        self._index: list[Tensor] = []
        self._correct: list[Tensor] = []

    def add(self, index: Tensor, correct: Tensor) -> None:
        """Add one batch.

        - index: (B,) int64, stable sample indices.
        - correct: (B,) bool.
        """
        self._index.append(index)
        self._correct.append(correct)

    def gathered(self, runtime: Runtime) -> Tensor:
        """Return (n,) float64 on the CPU, sorted by index: 0 or 1, or the mean over ranks that disagree.

        Each rank may have evaluated all samples or its share. Collective: all ranks must call it.
        """
        own = torch.cat(self._index).cpu(), torch.cat(self._correct).cpu()
        index, correct = (torch.cat(parts) for parts in zip(*runtime.gather(own), strict=True))
        seen, place = index.unique(return_inverse=True)
        right = torch.zeros(len(seen), dtype=torch.float64).index_add(0, place, correct.double())
        return right / torch.bincount(place)


def evaluate_splits(
    method: Method, data: Data, *, batch_size: int, runtime: Runtime, by_class: bool = False
) -> dict[str, float]:
    """Return the metrics of all splits that the data set wants evaluated, and the metrics that it derives from them.

    In addition to the metrics of `evaluate`: accuracies of groups and classes and their summaries if attributes are
    known; `<split>/inferred_worst` if the method has surrogate groups; `<split>/worst_class` and
    `<split>/balanced_accuracy` in both cases and with `by_class`. Each rank evaluates its share of the samples.
    """
    measured: dict[str, float] = {}
    for split in data.evaluation_splits:
        attributes, concepts = data.attributes(split), method.surrogate_groups(split)
        outcomes = Outcomes() if by_class or attributes is not None or concepts is not None else None
        loader = data.evaluation(split, batch_size, shard=len(data.labels(split)) >= runtime.world_size)
        measured |= evaluate(method, loader, split, runtime=runtime, outcomes=outcomes)
        if outcomes is None:
            continue
        correct, labels = outcomes.gathered(runtime), data.labels(split)
        values = _by_class(correct, labels, data, names=attributes is not None)
        if attributes is not None:
            values |= _by_group(correct, labels, attributes, data)
        if concepts is not None:
            assert len(concepts) == len(labels), f"{len(concepts)} rows of concepts for {len(labels)} {split} samples"
            least = groups.inferred_worst(
                correct,
                labels,
                concepts.cpu(),
                num_classes=data.task.num_classes,
                min_count=method.surrogate_min_count,
            )
            values |= {} if least is None else {"inferred_worst": least}
        measured |= {f"{split}/{name}": value for name, value in values.items()}
    return measured | data.derived_metrics(measured)


def _by_class(correct: Tensor, labels: Tensor, data: Data, *, names: bool) -> dict[str, float]:
    found = groups.accuracy_by_group(correct, labels, num_groups=data.task.num_classes)
    values = {
        "worst_class": float(found.accuracy[groups.worst(found)]),
        "balanced_accuracy": groups.balanced_average(found),
    }
    return values | (_named("class", data.task.label_names, found) if names else {})


def _by_group(correct: Tensor, labels: Tensor, attributes: Tensor, data: Data) -> dict[str, float]:
    task = data.task
    index = groups.group_of(labels, attributes, num_attributes=task.num_attributes)
    found = groups.accuracy_by_group(correct, index, num_groups=task.num_groups)
    worst = groups.worst(found)
    accuracy, count = float(found.accuracy[worst]), int(found.counts[worst])
    low, high = wilson_interval(accuracy, count)
    values = {
        "balanced_group_avg": groups.balanced_average(found),
        "worst_group": accuracy,
        "worst_group_low": low,
        "worst_group_high": high,
    }
    weights = data.group_counts("train")
    if weights is not None and bool(weights[found.present].any()):
        values["adjusted_avg"] = groups.weighted_average(found, weights)
    return values | _named("group", task.group_names, found)


def _named(kind: str, names: Sequence[str], found: groups.GroupAccuracies) -> dict[str, float]:
    rows = zip(names, found.accuracy.tolist(), found.present.tolist(), strict=True)
    return {f"{kind}/{name}": accuracy for name, accuracy, present in rows if present}


@torch.inference_mode()
def evaluate(
    method: Method, loader: Loader, split: str, *, runtime: Runtime, outcomes: Outcomes | None = None
) -> dict[str, float]:
    """Return `<split>/accuracy` and `<split>/loss`, and the same below `<split>/<name>/` for each named prediction.

    Accuracies are fractions in [0, 1]; losses are mean cross-entropies in nats.

    - loader: the split, or this rank's share of it: torchmetrics sums over ranks.
    - outcomes: collects which samples the prediction named "" gets right.
    """
    from torchmetrics import MeanMetric  # imports torchvision and more, so not before the first step

    num_classes = method.context.task.num_classes
    metrics: dict[str, MetricCollection] = {}
    losses: dict[str, MeanMetric] = {}
    for batch in loader.epoch(0):
        assert batch.targets is not None
        with runtime.autocast():
            predictions = method.predictions(batch.images)
        for name, logits in predictions.items():
            if name not in metrics:
                metrics[name] = _metrics(num_classes, runtime.device)
                losses[name] = MeanMetric().to(runtime.device)
            logits = logits.float()
            metrics[name].update(logits, batch.targets)
            losses[name].update(F.cross_entropy(logits, batch.targets, reduction="none"))
            if outcomes is not None and name == "":
                outcomes.add(batch.index, logits.argmax(dim=1) == batch.targets)
    values: dict[str, float] = {}
    for name, collection in metrics.items():
        prefix = f"{split}/{name}/" if name else f"{split}/"
        values |= {prefix + key: float(value) for key, value in collection.compute().items()}
        loss = float(losses[name].compute())
        values[prefix + "loss"] = loss if math.isfinite(loss) else float("inf")
    return values
