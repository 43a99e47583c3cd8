"""Empirical risk minimisation: cross-entropy on the given labels, with optional label smoothing and MixUp."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.core import rng
from robustlab.core.checks import at_least, within
from robustlab.data.dataset import Batch
from robustlab.data.transforms.augment import mixup
from robustlab.engine.method import Position
from robustlab.engine.shared_batch import own_rows, whole
from robustlab.methods.single_network import SingleNetwork


class ERM(SingleNetwork):
    """Train one network with cross-entropy.

    - label_smoothing: share of each target spread evenly over all classes (Szegedy et al. 2016).
    - mixup_alpha: parameter of MixUp's Beta(alpha, alpha) (Zhang et al. 2018); 0 turns MixUp off.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        within("label_smoothing", label_smoothing, 0, 1, below=True)
        at_least("mixup_alpha", mixup_alpha, 0)
        self.label_smoothing = label_smoothing
        self.mixup_alpha = mixup_alpha

    def loss(self, batch: Batch, position: Position) -> Mapping[str, Tensor]:
        """Return {"loss", "accuracy"}; the accuracy, on the assigned labels, is left out with MixUp."""
        assert batch.targets is not None
        learner = self.learners["network"]
        if self.mixup_alpha == 0:
            logits = learner(batch.images).float()
            loss = F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)
            return {"loss": loss, "accuracy": (logits.argmax(dim=1) == batch.targets).float().mean()}
        blank = torch.zeros(len(batch), self.context.task.num_classes, device=batch.targets.device)
        targets = blank.scatter(1, batch.targets[:, None], 1.0)  # one_hot would synchronise to check the labels
        generator = rng.generator(rng.fold(self.context.seed, "mixup", position.epoch, position.step))
        runtime = self.context.runtime
        images, targets = (whole(rows, batch.total, runtime=runtime) for rows in (batch.images, targets))
        own = own_rows([batch], runtime=runtime)
        images, targets, _ = mixup(images, targets, alpha=self.mixup_alpha, generator=generator, own=own)
        logits = learner(images).float()
        wanted = targets if own is None else targets[own.to(targets.device, non_blocking=True)]
        return {"loss": F.cross_entropy(logits, wanted, label_smoothing=self.label_smoothing)}
