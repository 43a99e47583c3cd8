"""The run folders that one command asks for: each is free or holds the same run, and no two runs share one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robustlab.config.baseline import compose_baseline, place
from robustlab.config.check import inspect
from robustlab.config.occupant import compared_settings, of_resolved, refusal
from robustlab.errors import ConfigError

_SHOWN = 4


class Folders:
    """Looks at the runs of a command one after the other, before the first of them starts."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[Sequence[str], Mapping[str, Any]]] = {}
        self._baselines: dict[tuple[str, ...], tuple[Mapping[str, Any], list[str]]] = {}

    def problems(self, cfg: DictConfig, settings: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
        """Return why a run may not use its folder. settings: the plain ones of `cfg`, which has these overrides."""
        others, before = self._taken.setdefault(place(cfg), (overrides, settings))
        if before is settings:
            found = refusal(Path(cfg.paths.run_dir).expanduser(), cfg)
            return [] if found is None else [found]
        differ = list(compared_settings(of_resolved(before), of_resolved(settings)))
        if not differ:  # both are one run, which the second finds finished
            return []
        keys = ", ".join(differ[:_SHOWN]) + (", ..." if len(differ) > _SHOWN else "")
        first = " ".join(text for text in others if text not in overrides)
        second = " ".join(text for text in overrides if text not in others)
        return [
            f"paths.run_dir: two runs of this command, {first} and {second}, have one folder, "
            f"{cfg.paths.run_dir}, and differ in {keys}; leave paths.run_dir out, or let it tell them apart, e.g. "
            "paths.run_dir='${paths.output_dir}/mine/${run_name:}/seed${seed}'"
        ]

    def baseline(
        self, compose: Callable[[list[str]], DictConfig], cfg: DictConfig, overrides: Sequence[str]
    ) -> tuple[Mapping[str, Any] | None, list[str]]:
        """Return the settings of the run that `compare` names beside a run, and what is wrong with it and its folder.

        compose: makes a configuration from overrides; its exceptions of Hydra's are let through.
        """
        try:
            other, own = compose_baseline(compose, cfg, overrides)
        except ConfigError as error:
            return None, [str(error)]
        key = tuple(own)
        if key not in self._baselines:
            settings, found = inspect(other)
            found = found or self.problems(other, settings, own)
            self._baselines[key] = settings, [f"compare={cfg.compare}: {message}" for message in found]
        return self._baselines[key]
