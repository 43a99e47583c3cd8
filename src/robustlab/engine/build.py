"""From a checked configuration to objects. `_target_` is the only registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from robustlab import rng
from robustlab.config.resolvers import path_safe
from robustlab.config.schema import LABELS
from robustlab.config.signature import import_target
from robustlab.data.base import DataSource, TaskSpec
from robustlab.data.decode import Decode
from robustlab.data.frozen import FrozenFeatures
from robustlab.data.module import Data
from robustlab.data.transform import Transform
from robustlab.data.views import TEST_VIEW
from robustlab.engine.learner import Learner
from robustlab.engine.runtime import Runtime
from robustlab.engine.schedule import arguments, refuse_misfit
from robustlab.errors import ConfigError, UserError
from robustlab.methods.base import Context, Method
from robustlab.models.heads import linear_probe
from robustlab.models.weights import load_weights, read_weights
from robustlab.tracking.console import say

_CONFIGURED: Any = object()
"""Stands for the scheduler of the configuration, where None means none."""


def build(node: Any, **runtime_arguments: Any) -> Any:
    """Instantiate a `_target_` node (its `LABELS` are no arguments). Raises ConfigError for a bad value.

    Errors that a constructor raises as ValueError or UserError reach the user as they are, without Hydra's wrapping.
    """
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    assert isinstance(plain, dict)
    for label in LABELS:
        plain.pop(label, None)
    target = str(plain["_target_"])
    refuse_import_error(target)
    try:
        return instantiate({"_convert_": "all", **plain}, **runtime_arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, ValueError):
            raise ConfigError(f"{target}: {cause}") from error
        if cause is None or target.startswith("robustlab."):
            raise
        raise ConfigError(f"{target}: its constructor failed: {type(cause).__name__}: {cause}") from error


def refuse_import_error(target: str) -> None:
    """Raise ConfigError with what keeps a `_target_` from being imported, of which Hydra says only that it was kept."""
    try:
        import_target(target)
    except Exception as error:  # whatever the code of a user's module raises
        raise ConfigError(f"_target_ {target}: cannot be imported: {type(error).__name__}: {error}") from error


def need(made: Any, kind: type | tuple[type, ...], key: str, target: str) -> Any:
    """Return what a `_target_` made. Raises ConfigError where it is of another kind than its key needs."""
    if isinstance(made, kind):
        return made
    names = " or ".join(
        f"{one.__module__}.{one.__qualname__}" for one in (kind if isinstance(kind, tuple) else (kind,))
    )
    raise ConfigError(f"{key}._target_: {target} made {type(made).__name__!r}; needed is an instance of {names}")


def build_data(cfg: DictConfig, runtime: Runtime) -> Data:
    """Read the data set, apply the noise model, and prepare views and loaders."""
    dataset, noise = cfg.dataset, cfg.noise
    views = {
        name: [need(build(one), Transform, f"dataset.views.{name}", one._target_) for one in transforms]
        for name, transforms in dataset.views.items()
    }
    decode = {
        name: need(build(node), Decode, f"dataset.decode.{name}", node._target_)
        for name, node in (dataset.decode or {}).items()
    } or None
    source: DataSource = need(build(dataset.source), DataSource, "dataset.source", dataset.source._target_)
    source.on_error = dataset.get("on_error", "raise")
    if source.on_error == "skip" and not source.can_skip:
        raise ConfigError(f"dataset.on_error=skip: {dataset.name} has no image files to leave out; use raise")
    if cfg.paths.stage is not None and dataset.storage == "resident" and runtime.is_main:
        say("paths.stage: nothing is copied, since dataset.storage=resident reads every file once")
    return Data(
        source,
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
        frozen=partial(_frozen, cfg, runtime) if cfg.get("features") else None,
        stage=None if cfg.paths.stage is None else Path(cfg.paths.stage),
    )


def _frozen(cfg: DictConfig, runtime: Runtime, task: TaskSpec) -> FrozenFeatures:
    """Return the configured model as a frozen network; weights that come from no file are a function of its seed."""
    settings = cfg.features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(settings.seed, "init", "frozen features"))
        network = build(cfg.model, num_classes=task.num_classes, image_shape=tuple(task.image_shape))
    if settings.weights is not None:
        state = read_weights(settings.weights, key="features.weights")
        load_weights(network, state, heads=("classifier", "projection"), source=f"features.weights {settings.weights}")
    dataset = OmegaConf.to_container(cfg.dataset, resolve=True)
    assert isinstance(dataset, dict)
    seen = [dataset["source"], dataset["storage"], dataset["decode"], dataset["views"].get(TEST_VIEW)]
    return FrozenFeatures(
        runtime.place(network),
        name=path_safe(cfg.model.name),
        settings=[OmegaConf.to_container(cfg.model, resolve=True), *seen],
        cache_dir=cfg.paths.cache_dir,
        batch_size=settings.batch_size,
    )


def make_method(cfg: DictConfig, *, processes: int) -> Method:
    """Create the method from its own settings. Raises ConfigError for a bad value, or too many processes."""
    method: Method = need(build(cfg.method), Method, "method", cfg.method._target_)
    if method.single_process is not None and processes > 1:
        raise ConfigError(
            f"method={cfg.method.name} runs in one process, not in {processes}: {method.single_process}; "
            "start it without torchrun, or with one task"
        )
    return method


def check_provided(method: Method, cfg: DictConfig, provided: frozenset[str]) -> None:
    """Raise ConfigError where the data does not provide what the method requires."""
    missing = method.requires - provided
    if missing:
        raise ConfigError(
            f"method={cfg.method.name} needs {', '.join(sorted(missing))}, which dataset={cfg.dataset.name} does not "
            f"provide (it provides: {', '.join(sorted(provided)) or 'images and labels only'}); choose another method "
            "or data set"
        )


def build_method(cfg: DictConfig, data: Data, runtime: Runtime) -> Method:
    """Create the method, check that the data provides what it requires, and let it make its learners."""
    method = make_method(cfg, processes=runtime.world_size)
    check_provided(method, cfg, data.provides)
    method.build(
        Context(
            task=data.task,
            data=data,
            runtime=runtime,
            seed=cfg.seed,
            epochs=cfg.trainer.epochs,
            batch_size=cfg.trainer.batch_size,
            new_learner=_learner_factory(cfg, data, runtime, method.projection_dim),
        )
    )
    return method


def _make_network(cfg: DictConfig, task: TaskSpec, projection_dim: int | None) -> nn.Module:
    """Return the configured model, or the linear classifier on its features; projection_dim: what the method needs."""
    configured = cfg.model.get("proj_dim")
    width = projection_dim if configured is None else configured
    if cfg.get("features"):
        return linear_probe(num_classes=task.num_classes, image_shape=task.image_shape, proj_dim=width)
    heads = {} if width is None else {"proj_dim": width}
    made = build(cfg.model, num_classes=task.num_classes, image_shape=tuple(task.image_shape), **heads)
    return need(made, nn.Module, "model", cfg.model._target_)


def _learner_factory(
    cfg: DictConfig, data: Data, runtime: Runtime, projection_dim: int | None
) -> Callable[..., Learner]:
    trainer = cfg.trainer
    tried: set[str] = set()

    def configured_schedule(
        name: str, optimizer: Callable[..., torch.optim.Optimizer], updates: Sequence[int]
    ) -> Callable[..., Any] | None:
        """Return the schedule of the configuration; ConfigError the first time that it does not fit a learner."""
        if cfg.scheduler.schedule is None:
            return None
        node = OmegaConf.to_container(cfg.scheduler.schedule, resolve=True)
        assert isinstance(node, dict)
        given = {str(key): value for key, value in node.items()}
        interval = cfg.scheduler.interval
        scheduler = build(arguments(given, interval=interval, updates=updates))
        if name not in tried:  # a learner that is made anew, within a run, has the length that came out of the run
            tried.add(name)
            whole = len(updates) == trainer.epochs
            run = "the run" if whole else f"the stage of network {name!r}"
            refuse_misfit(
                given,
                optimizer=optimizer,
                scheduler=scheduler,
                interval=interval,
                updates=updates,
                device=runtime.device,
                run=run,
                falls=whole,
            )
        return scheduler

    def new_learner(
        name: str,
        *,
        epochs: int,
        steps_per_epoch: int | Sequence[int],
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = _CONFIGURED,
        interval: str | None = None,
    ) -> Learner:
        """Return a learner whose initial weights are a function of (seed, "init", name); see `Context`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.fold(cfg.seed, "init", name))
            network = _make_network(cfg, data.task, projection_dim)
            if wrap is not None:
                network = wrap(network)
        steps = [steps_per_epoch] * epochs if isinstance(steps_per_epoch, int) else steps_per_epoch
        assert len(steps) == epochs, f"{len(steps)} numbers of steps for {epochs} epochs"
        optimizer = optimizer or build(cfg.optimizer)
        assert optimizer is not None
        try:
            if scheduler is _CONFIGURED:
                scheduler = configured_schedule(name, optimizer, [-(-one // trainer.accumulate) for one in steps])
            return Learner(
                network,
                runtime=runtime,
                optimizer=optimizer,
                scheduler=scheduler,
                interval=interval or cfg.scheduler.interval,
                accumulate=trainer.accumulate,
                clip_norm=trainer.clip_norm,
                ema_decay=trainer.ema_decay,
            )
        except (
            ValueError,
            ZeroDivisionError,
        ) as error:  # what torch and timm raise for settings that do not go together
            raise ConfigError(f"optimizer or scheduler: {error}") from error

    return new_learner
