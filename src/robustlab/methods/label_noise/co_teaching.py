"""Co-teaching: two networks that select each other's samples (Han et al., NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.core.console import percent, say
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Batch
from robustlab.engine.inference import eval_logits
from robustlab.engine.method import Context, Method, Position, Stage
from robustlab.engine.shared_batch import whole

NETWORKS = ("network1", "network2")


def forget_share(epoch: int, *, rate: float, num_gradual: int, exponent: float) -> float:
    """Return 1 - R(T) = rate * min(T^exponent / num_gradual, 1), the share of a batch dropped in epoch T = 0, 1, ..."""
    return rate * min(epoch**exponent / num_gradual, 1.0) if num_gradual > 0 else rate


def small_losses(losses: Tensor, share: float) -> Tensor:
    """Return the positions of the smallest losses in a batch, int64, at least one.

    - losses: (B,) float.
    - share: fraction of the batch to keep.
    """
    kept = max(1, int(share * len(losses) + 1e-6))  # 10 * (1 - 0.9) falls just short of 1
    return losses.argsort(stable=True)[:kept]


class CoTeaching(Method):
    """Each network learns from the samples on which the other network's loss is small.

    The paper reports single networks ("network1", "network2"); `predict` sums their logits, as the other two-network
    methods do.

    - forget_rate: tau, the final share of dropped samples; None uses the noise rate, which the paper assumes known: the
      true rate of wrong labels, or the nominal one if clean labels are unknown.
    - num_gradual: T_k, the number of epochs until that share is reached.
    - exponent: c, the exponent of the epoch.
    """

    def __init__(
        self,
        *,
        forget_rate: float | None = None,
        num_gradual: int = 10,
        exponent: float = 1.0,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        if forget_rate is not None and not 0 <= forget_rate < 1:
            raise ConfigError(f"method.forget_rate is {forget_rate}; it must lie in [0, 1)")
        if num_gradual < 0 or exponent <= 0:
            raise ConfigError(
                f"method.num_gradual={num_gradual}, method.exponent={exponent}: the first must be at least 0, the "
                f"second above 0"
            )
        self.forget_rate, self.num_gradual, self.exponent = forget_rate, num_gradual, exponent

    def build(self, context: Context) -> None:
        """Make both networks. Raises `ConfigError` if neither the user nor the data specifies the noise rate."""
        self.context = context
        self.loader = self._train_loader(context)
        self.learners = {
            name: context.new_learner(name, epochs=context.epochs, steps_per_epoch=len(self.loader))
            for name in NETWORKS
        }
        self.rate = self._rate(context) if self.forget_rate is None else self.forget_rate
        device, noisy = context.runtime.device, context.data.is_noisy
        self.wrong = None if noisy is None else noisy.to(device)  # only for diagnostics
        self.picked = torch.zeros(2, dtype=torch.int64, device=device)  # correctly labelled, all

    def _rate(self, context: Context) -> float:
        record = context.data.noise_record()
        known = record["true_rate"] is not None
        rate = record["true_rate"] if known else record["rate"]
        if rate is None:
            raise ConfigError("method=co_teaching does not know the noise rate of this data; set method.forget_rate")
        origin = "the true rate of wrong labels" if known else "the nominal rate of the noise"
        say(f"Co-teaching drops {percent(rate)} of the samples, {origin}; override with method.forget_rate=<share>")
        return float(rate)

    def train_step(self, item: Batch, position: Position) -> Mapping[str, Tensor]:
        """Let both networks rank the batch, then train each on the samples that the other selected."""
        assert item.targets is not None
        share = 1 - forget_share(position.epoch, rate=self.rate, num_gradual=self.num_gradual, exponent=self.exponent)
        losses: list[Tensor] = []
        for name in NETWORKS:
            learner = self.learners[name]
            learner.network.train()
            with self.context.runtime.autocast():
                logits = learner(item.images)
            own = F.cross_entropy(logits.float(), item.targets, reduction="none")
            losses.append(whole(own, item.total, runtime=self.context.runtime))
        chosen = [small_losses(loss.detach(), share) for loss in losses]
        kept = [loss[choice].mean() for loss, choice in zip(losses, reversed(chosen), strict=True)]
        for name, loss in zip(NETWORKS, kept, strict=True):
            self.learners[name].step(loss)
        self._count(torch.cat(chosen), item)
        first, second = kept[0].detach(), kept[1].detach()
        return {"loss": first + second, "loss_network1": first, "loss_network2": second}

    def _count(self, chosen: Tensor, item: Batch) -> None:
        if self.wrong is not None:
            index = whole(item.index, item.total, runtime=self.context.runtime)
            right = (~self.wrong[index[chosen]]).sum()
            self.picked += torch.stack([right, torch.full_like(right, len(chosen))])

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Return the share left out and the share of right labels among the picked samples."""
        share = forget_share(epoch, rate=self.rate, num_gradual=self.num_gradual, exponent=self.exponent)
        metrics = {"diagnostics/forget_share": share}
        right, picked = self.picked.tolist()
        self.picked.zero_()
        if picked:
            metrics["diagnostics/label_precision"] = right / picked
        return metrics

    def predict(self, images: Tensor) -> Tensor:
        """Return the sum of both networks' logits, (B, C) float32."""
        return self.predictions(images)[""]

    def predictions(self, images: Tensor) -> dict[str, Tensor]:
        """Return "" (the sum of logits), "network1" and "network2"."""
        first, second = (eval_logits(self.learners[name], images, runtime=self.context.runtime) for name in NETWORKS)
        return {"": first + second, "network1": first, "network2": second}

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of the epoch so far."""
        return {"picked": self.picked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.picked.copy_(state["picked"])
