"""GroupDRO: minimise the loss of the worst groups (Sagawa, Koh, Hashimoto, Liang, ICLR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.core.checks import at_least
from robustlab.data.dataset import Batch
from robustlab.data.serving.loader import Loader
from robustlab.data.told_groups import train_groups
from robustlab.engine.method import Context, Position, Stage
from robustlab.engine.shared_batch import whole
from robustlab.methods.erm import ERM
from robustlab.methods.groups.class_balanced import inverse_frequency


class GroupDRO(ERM):
    """Minimises sum_g q_g loss_g, where q moves towards the groups with the largest losses.

    In each training step q_g is multiplied by exp(step * loss_g) and normalised, where loss_g is the mean loss of group
    g in the batch, or 0 for groups that are not in the batch. The official code combines this loss with a sampler that
    makes groups equally likely; here these are two switches. Both give GroupDRO as published, `balanced` alone gives
    RWG, neither gives ERM.

    - step: step size of q, in the exponent.
    - robust: use the loss above; if false, the mean over images.
    - balanced: use the sampler; if false, shuffled passes.
    - adjustment: C of the generalisation adjustment (section 3.3), which adds C / sqrt(n_g) to the loss that moves q,
      for a group of n_g images; as in the official code also for groups that are not in the batch.
    """

    requires = frozenset({"groups"})

    def __init__(
        self,
        *,
        step: float = 0.01,
        robust: bool = True,
        balanced: bool = True,
        adjustment: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing)
        at_least("step", step, 0)
        at_least("adjustment", adjustment, 0)
        self.step, self.robust, self.balanced, self.adjustment = step, robust, balanced, adjustment

    def build(self, context: Context) -> None:
        """Make the network and q, (num_groups,) float32, initially uniform over the groups that occur."""
        groups, device = train_groups(context.data, self), context.runtime.device
        own = groups[context.data.train_indices]
        self.draw_weights = inverse_frequency(own) if self.balanced else None
        self.groups = groups.to(device)
        counts = torch.bincount(own, minlength=context.task.num_groups).to(device)
        self.q = (counts > 0).float() / (counts > 0).sum()
        self.margin = self.adjustment / counts.clamp(min=1).sqrt()
        super().build(context)

    def _train_loader(self, context: Context) -> Loader:
        return context.data.loader(
            batch_size=context.batch_size, views=("weak",), purpose="train", weights=self.draw_weights
        )

    def loss(self, batch: Batch, position: Position) -> Mapping[str, Tensor]:
        """Return {"loss", "accuracy"} and, if the loss is robust, "mean_loss" over images; moves q first."""
        if not self.robust:
            return super().loss(batch, position)
        assert batch.targets is not None
        logits = self.learners["network"](batch.images).float()
        losses = F.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=self.label_smoothing)
        runtime = self.context.runtime
        groups = self.groups[batch.index]
        counts = self._move(
            whole(losses.detach(), batch.total, runtime=runtime), whole(groups, batch.total, runtime=runtime)
        )
        weights = (self.q / counts.clamp(min=1) * batch.total)[groups]  # sum_g q_g loss_g as a mean over images
        return {
            "loss": (weights * losses).mean(),
            "mean_loss": losses.mean(),
            "accuracy": (logits.argmax(dim=1) == batch.targets).float().mean(),
        }

    def _move(self, losses: Tensor, groups: Tensor) -> Tensor:
        """Move q and return the number of images per group, (num_groups,).

        - losses: (B,) float32, per image.
        - groups: (B,) int64.
        """
        members = (groups[:, None] == torch.arange(len(self.q), device=groups.device)).to(losses.dtype)
        counts = members.sum(dim=0)
        by_group = (losses[:, None] * members).sum(dim=0) / counts.clamp(min=1)  # autocast would run a matmul in bf16
        moved = self.q * (self.step * (by_group + self.margin)).exp()
        self.q = moved / moved.sum()
        return counts

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Return q by the names of groups."""
        if not self.robust:
            return {}
        return {f"q/{name}": q for name, q in zip(self.context.task.group_names, self.q.tolist(), strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Return q."""
        return {"q": self.q}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.q = state["q"].to(self.q)
