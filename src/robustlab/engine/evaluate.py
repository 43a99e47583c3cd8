"""Evaluation of a method on a named split."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from robustlab.data.loader import Loader
from robustlab.engine.runtime import Runtime
from robustlab.methods.base import Method

if TYPE_CHECKING:
    from torchmetrics import MeanMetric, MetricCollection


def _metrics(num_classes: int, device: torch.device) -> MetricCollection:
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy

    collection = {"accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
    if num_classes >= 20:  # the larger data sets are reported with top-5 beside top-1
        collection["accuracy_top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, validate_args=False)
    return MetricCollection(dict(collection)).to(device)


@torch.inference_mode()
def evaluate(method: Method, loader: Loader, split: str, *, runtime: Runtime) -> dict[str, float]:
    """Return `<split>/accuracy`, `<split>/loss` and, for each named prediction, `<split>/<name>/accuracy` and loss.

    Accuracies are fractions in [0, 1]; losses are mean cross-entropies in nats. `loader` may hold this rank's share of
    the split: torchmetrics sums over ranks.
    """
    from torchmetrics import MeanMetric  # imports torchvision and more: not before the first step

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
    values: dict[str, float] = {}
    for name, collection in metrics.items():
        prefix = f"{split}/{name}/" if name else f"{split}/"
        values |= {prefix + key: float(value) for key, value in collection.compute().items()}
        loss = float(losses[name].compute())
        values[prefix + "loss"] = loss if math.isfinite(loss) else float("inf")
    return values
