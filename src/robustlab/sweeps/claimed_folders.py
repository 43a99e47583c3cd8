"""Check the run folders of one command: each must be free or hold the same run, and no two runs may share one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robustlab.config.baseline import compose_baseline, place
from robustlab.config.check import inspect
from robustlab.config.occupant import compared_settings, of_resolved, refusal
from robustlab.core.errors import ConfigError

_SHOWN = 4


class Folders:
    """Checks the folders of a command's runs one by one, before the first run starts."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[Sequence[str], Mapping[str, Any]]] = {}
        self._baselines: dict[tuple[str, ...], tuple[Mapping[str, Any], list[str]]] = {}

    def problems(self, cfg: DictConfig, settings: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
        """Return the reasons why a run may not use its folder.

        - cfg, overrides: the run's configuration and the overrides it was composed from.
        - settings: `cfg` as plain values.
        """
        others, before = self._taken.setdefault(place(cfg), (overrides, settings))
        if before is settings:
            found = refusal(Path(cfg.paths.run_dir).expanduser(), cfg)
            return [] if found is None else [found]
        differ = list(compared_settings(of_resolved(before), of_resolved(settings)))
        if not differ:  # the same run twice: the second finds it finished
            return []
        keys = ", ".join(differ[:_SHOWN]) + (", ..." if len(differ) > _SHOWN else "")
        first = " ".join(text for text in others if text not in overrides)
        second = " ".join(text for text in overrides if text not in others)
        return [
            f"paths.run_dir: two runs of this command, {first} and {second}, share the folder "
            f"{cfg.paths.run_dir} but differ in {keys}; leave paths.run_dir out, or make it unique, e.g. "
            "paths.run_dir='${paths.output_dir}/mine/${run_name:}/seed${seed}'"
        ]

    def baseline(
        self, compose: Callable[[list[str]], DictConfig], cfg: DictConfig, overrides: Sequence[str]
    ) -> tuple[Mapping[str, Any] | None, list[str]]:
        """Return the settings of a run's baseline (see `compare`), and the problems of the baseline and its folder.

        - compose: makes a configuration from overrides; Hydra's exceptions pass through.
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
