"""`Learner`: a network with its optimizer, scheduler, gradient scaler and moving average, updated and saved as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime, average_gradients, average_statistics
from robustlab.engine.lr_schedule import after_epoch, after_update
from robustlab.models.units import Units
from robustlab.pruning.surgery import Surgeon


class Learner:
    """One trainable network. `network` is the raw module; calling the learner runs its (compiled) forward.

    A call of `step` back-propagates one micro-batch; every `accumulate` steps make one update of the weights.

    - optimizer: parameters -> optimizer.
    - scheduler: optimizer -> scheduler, or None.
    - interval: whether the scheduler advances per "epoch" or per update ("step").
    - accumulate: steps per update.
    - clip_norm: maximum global gradient norm.
    - ema_decay: decay per update of a moving average of the weights, used by `inference_network`; its buffers
      (BatchNorm statistics) are copied from the network.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        runtime: Runtime,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        interval: str = "epoch",
        accumulate: int = 1,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
    ) -> None:
        self.runtime = runtime
        self.network = runtime.place(network)
        self.optimizer = optimizer(self.network.parameters())
        if isinstance(self.optimizer, torch.optim.LBFGS):
            raise ConfigError("optimizer: LBFGS needs several loss evaluations per update, which methods do not offer")
        self.scheduler = scheduler(self.optimizer) if scheduler else None
        self.interval, self.accumulate, self.clip_norm = interval, accumulate, clip_norm
        self.scaler = torch.amp.GradScaler(runtime.device.type) if runtime.precision == "fp16" else None  # type: ignore[attr-defined]
        self.ema = None
        if ema_decay is not None:
            self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        if runtime.compile:
            self.network.compile()  # in place, so that state keys keep their names
        self.pending = 0
        self.updates = 0
        self.epochs = 0
        self.on_gradients: Callable[[], None] | None = None
        """Called before each update, with gradients accumulated, unscaled and averaged over ranks, but not clipped."""
        self.on_update: Callable[[], None] | None = None
        """Called after each update, before the moving average sees the new weights; not after a skipped update."""
        self._checked = False
        self.surgeon: Surgeon | None = None
        """Once attached, removes units from the network, the optimizer's state and the moving average."""

    def __call__(self, images: Tensor, **options: Any) -> Any:
        """Run the network's forward pass in its current mode."""
        return self.network(images, **options)

    @property
    def inference_network(self) -> nn.Module:
        """The network to predict with: the moving average if there is one, else the network itself."""
        return self.ema.module if self.ema is not None else self.network

    @property
    def lr(self) -> float:
        """Learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, loss: Tensor) -> None:
        """Back-propagate a scalar loss; every `accumulate` calls, update the weights."""
        if self.accumulate > 1:
            loss = loss / self.accumulate
        (self.scaler.scale(loss) if self.scaler else loss).backward()
        self.pending += 1
        if self.pending == self.accumulate:
            self._update()

    def flush(self) -> None:
        """Apply gradients still being accumulated, so that none is carried over to the next epoch."""
        if self.pending:
            self._update()

    def end_epoch(self, loss: float | None = None) -> None:
        """Flush, and advance a scheduler that counts epochs or waits for a plateau of `loss`, the epoch's mean.

        Running BatchNorm statistics are averaged over ranks, so that all ranks then hold the same network.
        """
        self.flush()
        average_statistics([self.network, *([] if self.ema is None else [self.ema.module])], runtime=self.runtime)
        self.epochs += 1
        if self.scheduler is not None:
            after_epoch(self.scheduler, epochs=self.epochs, interval=self.interval, loss=loss)

    def _update(self) -> None:
        if self.runtime.world_size > 1:
            average_gradients(self.network.parameters(), self.runtime.world_size)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.on_gradients is not None:
            self.on_gradients()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        stepped = self._step_optimizer()
        if stepped and self.surgeon is not None and not self._checked:  # no optimizer state before that
            self.surgeon.check_optimizer()
            self._checked = True
        if stepped and self.on_update is not None:
            self.on_update()
        self.optimizer.zero_grad(set_to_none=True)
        self.pending = 0
        self.updates += 1
        if stepped and self.ema is not None:
            self.ema.update_parameters(self.network)
        if self.scheduler is not None:
            after_update(self.scheduler, updates=self.updates, interval=self.interval)

    def _step_optimizer(self) -> bool:
        """Run the optimizer; return False if the gradient scaler skipped it because of a NaN or infinite gradient.

        A skipped update still counts in `updates` and for the scheduler, so that schedules end with the run.
        """
        if self.scaler is None:
            self.optimizer.step()
            return True
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  otherwise torch warns that the scheduler stepped first
        return self.scaler.get_scale() >= scale  # the scale shrinks only after skipped updates

    def is_finite(self) -> bool:
        """Return whether all weights and buffers are finite; synchronises with the device once."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        return bool(torch.stack([one.detach().isfinite().all() for one in tensors]).all())

    def state_bytes(self) -> int:
        """Estimate the bytes of a checkpoint, even before the optimizer has any state."""
        weights = sum(one.nbytes for one in self.network.parameters())
        buffers = sum(one.nbytes for one in self.network.buffers())
        defaults = self.optimizer.defaults
        moments = 2 if "betas" in defaults else 1 if defaults.get("momentum") else 0
        return (weights + buffers) * (1 if self.ema is None else 2) + moments * weights

    def attach_surgeon(
        self, units: Units, *, min_width: int = 1, round_to: int = 1, exclude: Sequence[str] = ()
    ) -> Surgeon:
        """Prepare for removing units from network, optimizer and moving average; see `Surgeon` for the arguments."""
        assert self.surgeon is None, "a second surgeon would not know about the first one's removals"
        self.surgeon = Surgeon(
            self.network,
            units,
            optimizer=self.optimizer,
            copies=[] if self.ema is None else [self.ema.module],
            min_width=min_width,
            round_to=round_to,
            exclude=exclude,
        )
        return self.surgeon

    def remove(self, dead: Mapping[str, Tensor], *, constants: Mapping[str, Tensor] | None = None) -> int:
        """Remove units as `Surgeon.remove` does and return their number. Only valid between updates."""
        assert self.surgeon is not None, "call attach_surgeon() first"
        assert self.pending == 0, "accumulated gradients still have the shapes before removal"
        removed = self.surgeon.remove(dead, constants=constants)
        if removed:
            self._forget_shapes()
        return removed

    def _forget_shapes(self) -> None:
        """Drop whatever was compiled and allocated for the previous shapes of layers."""
        if self.runtime.compile:  # otherwise torch soon hits its recompilation limit and silently falls back to eager
            torch.compiler.reset()
        if self.runtime.device.type == "cuda":
            torch.cuda.empty_cache()

    def load_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Restore buffers as returned by `network.named_buffers()`, in the moving average as well."""
        for network in [self.network] if self.ema is None else [self.network, self.ema.module]:
            network.load_state_dict(dict(buffers), strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue training; only valid when no gradients are being accumulated."""
        assert self.pending == 0, "a checkpoint between accumulated steps would lose gradients"
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "units": self.surgeon.state_dict() if self.surgeon is not None else None,
            "updates": self.updates,
            "epochs": self.epochs,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, retune: bool = False) -> None:
        """Restore the state that `state_dict` returned; a surgeon first cuts everything to the units left at that time.

        - retune: take only the moments from the saved optimizer. Learning rate, weight decay and the like then have
          the values that this learner's settings and schedule give after as many updates and epochs.
        """
        own = self._tuning_after(state["updates"], state["epochs"]) if retune else None
        if self.surgeon is not None:
            self.surgeon.load_state_dict(state["units"])
            self._forget_shapes()
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, tuning in zip(self.optimizer.param_groups, own or [], strict=own is not None):
            group.update(tuning)
        for name in ("scheduler", "scaler", "ema"):
            part = getattr(self, name)
            if part is not None and not (name == "scheduler" and own is not None):
                part.load_state_dict(state[name])
        self.updates, self.epochs = state["updates"], state["epochs"]
        if self.updates:  # otherwise torch warns that the scheduler stepped first; the optimizer did, before the stop
            self.optimizer._opt_called = True  # type: ignore[attr-defined]

    def _tuning_after(self, updates: int, epochs: int) -> list[dict[str, Any]] | None:
        """Advance the fresh schedule and return the resulting optimizer settings, one dict per parameter group.

        None for a schedule that waits for a plateau of the loss: only its saved state knows where it is.
        """
        if isinstance(self.scheduler, ReduceLROnPlateau):
            return None
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  as above
        if self.scheduler is not None:
            for update in range(1, updates + 1):
                after_update(self.scheduler, updates=update, interval=self.interval)
            for epoch in range(1, epochs + 1):
                after_epoch(self.scheduler, epochs=epoch, interval=self.interval)
        groups = self.optimizer.param_groups
        return [{key: value for key, value in group.items() if key != "params"} for group in groups]
