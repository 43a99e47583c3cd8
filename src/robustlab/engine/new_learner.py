"""Make a method's learners: network, optimizer and schedule from a checked configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from robustlab.config.build import build, need
from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.data.dataset import TaskSpec
from robustlab.engine.learner import Learner
from robustlab.engine.lr_schedule import MakeOptimizer, MakeScheduler, arguments, refuse_misfit
from robustlab.engine.trainer_settings import LearnerSettings
from robustlab.models.heads import linear_probe

_CONFIGURED: Any = object()
"""Stands for the configured scheduler, since None means no scheduler."""


class NewLearner:
    """Makes the learners of one run; see `Context.new_learner`."""

    def __init__(self, cfg: DictConfig, task: TaskSpec, runtime: Runtime, *, projection_dim: int | None) -> None:
        """Store what learners are made from.

        - projection_dim: width of the projection head that the method needs; None for none.
        """
        self._cfg, self._task, self._runtime = cfg, task, runtime
        self._projection_dim = projection_dim
        self._settings = LearnerSettings.from_config(cfg.trainer)
        self._tried: set[str] = set()

    def __call__(
        self,
        name: str,
        *,
        epochs: int,
        steps_per_epoch: int | Sequence[int],
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = _CONFIGURED,
        interval: str | None = None,
    ) -> Learner:
        """Return a learner whose initial weights are a function of (seed, "init", `name`); see `Context`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.fold(self._cfg.seed, "init", name))
            network = self._network()
            if wrap is not None:
                network = wrap(network)
        steps = [steps_per_epoch] * epochs if isinstance(steps_per_epoch, int) else steps_per_epoch
        assert len(steps) == epochs, f"{len(steps)} numbers of steps for {epochs} epochs"
        make: MakeOptimizer = optimizer or build(self._cfg.optimizer)
        try:
            if scheduler is _CONFIGURED:
                scheduler = self._schedule(name, make, [-(-one // self._settings.accumulate) for one in steps])
            return Learner(
                network,
                runtime=self._runtime,
                optimizer=make,
                scheduler=scheduler,
                interval=interval or self._cfg.scheduler.interval,
                **asdict(self._settings),
            )
        except (ValueError, ZeroDivisionError) as error:  # torch and timm raise these for unsuitable settings
            raise ConfigError(f"optimizer or scheduler: {error}") from error

    def _network(self) -> nn.Module:
        """Return the configured model, or a linear classifier on its features."""
        cfg, task = self._cfg, self._task
        configured = cfg.model.get("proj_dim")
        width = self._projection_dim if configured is None else configured
        if cfg.get("features"):
            return linear_probe(num_classes=task.num_classes, image_shape=task.image_shape, proj_dim=width)
        heads = {} if width is None else {"proj_dim": width}
        made = build(cfg.model, num_classes=task.num_classes, image_shape=tuple(task.image_shape), **heads)
        return need(made, nn.Module, "model", cfg.model._target_)

    def _schedule(self, name: str, optimizer: MakeOptimizer, updates: Sequence[int]) -> MakeScheduler | None:
        """Return the configured schedule. Raises ConfigError the first time that it does not fit a learner."""
        cfg = self._cfg
        if cfg.scheduler.schedule is None:
            return None
        node = OmegaConf.to_container(cfg.scheduler.schedule, resolve=True)
        assert isinstance(node, dict)
        given = {str(key): value for key, value in node.items()}
        interval = cfg.scheduler.interval
        scheduler = build(arguments(given, interval=interval, updates=updates))
        if name not in self._tried:  # a learner made again during the run has a length that the user did not choose
            self._tried.add(name)
            whole = len(updates) == cfg.trainer.epochs
            refuse_misfit(
                given,
                optimizer=optimizer,
                scheduler=scheduler,
                interval=interval,
                updates=updates,
                device=self._runtime.device,
                run="the run" if whole else f"the stage of network {name!r}",
                falls=whole,
            )
        return scheduler
