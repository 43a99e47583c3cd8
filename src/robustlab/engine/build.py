"""From a checked configuration to objects. `_target_` is the only registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from robustlab import rng
from robustlab.data.module import Data
from robustlab.engine.learner import Learner
from robustlab.engine.runtime import Runtime
from robustlab.errors import ConfigError, UserError
from robustlab.methods.base import Context, Method

_CONFIGURED: Any = object()
"""Stands for the scheduler of the configuration, where None means none."""


def build(node: Any, **runtime_arguments: Any) -> Any:
    """Instantiate a `_target_` node (its `name` is a label, not an argument). Raises ConfigError for a bad value.

    Errors that a constructor raises as ValueError or UserError reach the user as they are, without Hydra's wrapping.
    """
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    assert isinstance(plain, dict)
    plain.pop("name", None)
    try:
        return instantiate({"_convert_": "all", **plain}, **runtime_arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, ValueError):
            raise ConfigError(f"{plain['_target_']}: {cause}") from error
        raise


def build_data(cfg: DictConfig, runtime: Runtime) -> Data:
    """Read the data set, apply the noise model, and prepare views and loaders."""
    dataset, noise = cfg.dataset, cfg.noise
    views = {name: [build(transform) for transform in transforms] for name, transforms in dataset.views.items()}
    decode = {name: build(node) for name, node in dataset.decode.items()} if dataset.decode else None
    return Data(
        build(dataset.source),
        seed=cfg.seed,
        noise=build(noise.model) if noise.model is not None else None,
        noise_name=noise.name,
        noise_seed=noise.seed,
        val_fraction=dataset.val_fraction,
        subset=dataset.subset,
        storage=dataset.storage,
        workers=dataset.workers,
        views=views,
        decode=decode,
        device=runtime.device,
        channels_last=runtime.channels_last,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )


def build_method(cfg: DictConfig, data: Data, runtime: Runtime) -> Method:
    """Create the method, check that the data provides what it requires, and let it make its learners."""
    method: Method = build(cfg.method)
    missing = method.requires - data.provides
    if missing:
        raise ConfigError(
            f"method={cfg.method.name} needs {', '.join(sorted(missing))}, which dataset={cfg.dataset.name} does not "
            f"provide (it provides: {', '.join(sorted(data.provides)) or 'images and labels only'})"
        )
    wanted = method.projection_dim if cfg.model.get("proj_dim") is None else None
    heads = {} if wanted is None else {"proj_dim": wanted}
    method.build(
        Context(
            task=data.task,
            data=data,
            runtime=runtime,
            seed=cfg.seed,
            epochs=cfg.trainer.epochs,
            batch_size=cfg.trainer.batch_size,
            new_learner=_learner_factory(cfg, data, runtime, heads),
        )
    )
    return method


def _learner_factory(cfg: DictConfig, data: Data, runtime: Runtime, heads: Mapping[str, Any]) -> Callable[..., Learner]:
    trainer = cfg.trainer

    def new_learner(
        name: str,
        *,
        epochs: int,
        steps_per_epoch: int,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = _CONFIGURED,
        interval: str | None = None,
    ) -> Learner:
        """Return a learner whose initial weights are a function of (seed, "init", name); see `Context`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.fold(cfg.seed, "init", name))
            network = build(
                cfg.model, num_classes=data.task.num_classes, image_shape=tuple(data.task.image_shape), **heads
            )
            if wrap is not None:
                network = wrap(network)
        updates = -(-steps_per_epoch // trainer.accumulate)
        totals = {"total_epochs": epochs, "total_steps": epochs * updates}
        schedule = cfg.scheduler.schedule
        if scheduler is _CONFIGURED:
            scheduler = None
            if schedule is not None:
                node = OmegaConf.to_container(schedule, resolve=True)
                assert isinstance(node, dict)
                scheduler = build({k: totals.get(v, v) if isinstance(v, str) else v for k, v in node.items()})
        try:
            return Learner(
                network,
                runtime=runtime,
                optimizer=optimizer or build(cfg.optimizer),
                scheduler=scheduler,
                interval=interval or cfg.scheduler.interval,
                accumulate=trainer.accumulate,
                clip_norm=trainer.clip_norm,
                ema_decay=trainer.ema_decay,
            )
        except ValueError as error:  # what torch and timm raise for settings that do not go together
            raise ConfigError(f"optimizer or scheduler: {error}") from error

    return new_learner
