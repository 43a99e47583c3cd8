"""The run that `compare` shows beside another: its overrides, its folder, and its composed configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from robustlab.errors import ConfigError


def has_baseline(cfg: DictConfig) -> bool:
    """Tell whether `compare` names another method than the run's own."""
    return bool(cfg.compare) and cfg.compare != cfg.method.name


def baseline_overrides(overrides: Sequence[str], method: str) -> list[str]:
    """Return the overrides of the same settings with another method: those of the method itself fall away."""
    return [*_without(overrides, "method=", "method.", "overlay=", "compare="), f"method={method}", "compare=null"]


def compose_baseline(
    compose: Callable[[list[str]], DictConfig], cfg: DictConfig, overrides: Sequence[str]
) -> tuple[DictConfig, list[str]]:
    """Return the configuration of a run's baseline and its overrides.

    Where paths.run_dir gives both the same folder, the baseline has its default one. Raises ConfigError where they
    would still share a folder, and what `compose` raises.
    """
    own = baseline_overrides(overrides, cfg.compare)
    other = compose(own)
    if place(other) == place(cfg):
        own = _without(own, "paths.run_dir=")
        other = compose(own)
    if place(other) == place(cfg):
        raise ConfigError(
            f"compare={cfg.compare}: its run would have the folder of this one, {cfg.paths.run_dir}; put "
            "${run_name:} into paths.run_dir, or leave the comparison out with compare=null"
        )
    return other, own


def place(cfg: DictConfig) -> str:
    """Return the run folder of a configuration, with links followed."""
    return os.path.realpath(Path(cfg.paths.run_dir).expanduser())


def _without(overrides: Sequence[str], *beginnings: str) -> list[str]:
    return [text for text in overrides if not text.lstrip("+~").startswith(beginnings)]
