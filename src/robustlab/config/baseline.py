"""Compose the baseline run that `compare` names: its overrides, its folder and its configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from robustlab.core.errors import ConfigError


def has_baseline(cfg: DictConfig) -> bool:
    """Return whether `compare` names a method other than the run's own."""
    return bool(cfg.compare) and cfg.compare != cfg.method.name


def baseline_overrides(overrides: Sequence[str], method: str) -> list[str]:
    """Replace the method and drop the old one's overrides."""
    return [*_without(overrides, "method=", "method.", "overlay=", "compare="), f"method={method}", "compare=null"]


def compose_baseline(
    compose: Callable[[list[str]], DictConfig], cfg: DictConfig, overrides: Sequence[str]
) -> tuple[DictConfig, list[str]]:
    """Return the configuration of a run's baseline and its overrides.

    If paths.run_dir would give both runs the same folder, the baseline uses its default folder instead.

    Raises ConfigError if they would still share a folder, and whatever `compose` raises.
    """
    own = baseline_overrides(overrides, cfg.compare)
    other = compose(own)
    if place(other) == place(cfg):
        own = _without(own, "paths.run_dir=")
        other = compose(own)
    if place(other) == place(cfg):
        raise ConfigError(
            f"compare={cfg.compare}: the baseline would share this run's folder, {cfg.paths.run_dir}; put "
            "${run_name:} into paths.run_dir, or turn the comparison off with compare=null"
        )
    return other, own


def place(cfg: DictConfig) -> str:
    """Return the run folder of a configuration, with symbolic links resolved."""
    return os.path.realpath(Path(cfg.paths.run_dir).expanduser())


def _without(overrides: Sequence[str], *beginnings: str) -> list[str]:
    return [text for text in overrides if not text.lstrip("+~").startswith(beginnings)]
