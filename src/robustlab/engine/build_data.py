"""Build `Data` from a checked configuration: source, noise, views, and optionally frozen features instead of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from robustlab.config.build import build, need
from robustlab.config.run_names import path_safe
from robustlab.core import rng
from robustlab.core.console import say
from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.data.dataset import DataSource, TaskSpec
from robustlab.data.run_data import Data
from robustlab.data.serving.frozen_features import FrozenFeatures
from robustlab.data.serving.served_views import TEST_VIEW
from robustlab.data.transforms.decode import Decode
from robustlab.data.transforms.transform import Transform
from robustlab.models.weights import load_weights, read_weights


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
        raise ConfigError(f"dataset.on_error=skip: {dataset.name} has no image files to skip; use raise")
    if cfg.paths.stage is not None and dataset.storage == "resident" and runtime.is_main:
        say("paths.stage: not used, since dataset.storage=resident reads every file only once")
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
    """Return features of the frozen configured model; without a weights file its weights depend on the seed only."""
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
