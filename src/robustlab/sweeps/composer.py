"""Compose the points of a sweep; points that differ only in values share one composition."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustlab.config.hydra_session import is_group, load, without_hydra

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

NOT_USED = {"run.dir": ".", "sweep.subdir": ".", "output_subdir": None, "job.chdir": False}
"""Hydra settings that choose folders, with the values they must keep."""


class Composer:
    """Composes points, reading and merging the files once for all points that choose the same options.

    Hydra needs 50 ms or more to compose a configuration, but 1 ms to set values in one that is already composed.
    """

    def __init__(self, hydra: Hydra, hydra_overrides: Sequence[str], config_name: str) -> None:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        self.hydra, self.hydra_overrides, self.config_name = hydra, list(hydra_overrides), config_name
        self.parser = OverridesParser.create()
        self.bases: dict[tuple[str, ...], tuple[bytes, list[str]]] = {}

    def __call__(self, point: Sequence[str]) -> tuple[DictConfig, list[str]]:
        """Return the configuration without the node `hydra`, and the problems of that node.

        Raises the exceptions of `load`.
        """
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        parsed = self.parser.parse_overrides(list(point))
        of_values = [one.package is None and not is_group(one.key_or_group) for one in parsed]
        values = [one for one, is_value in zip(parsed, of_values, strict=True) if is_value]
        options = tuple(text for text, is_value in zip(point, of_values, strict=True) if not is_value)
        if options not in self.bases:
            cfg = self._load(options)
            self.bases[options] = pickle.dumps(without_hydra(cfg)), hydra_problems(cfg)
        stored, messages = self.bases[options]
        cfg = pickle.loads(stored)
        try:
            ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        except (HydraException, OmegaConfBaseException):
            cfg = without_hydra(self._load(point))  # raises the same error, worded as for a single run
        return cfg, messages

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        return load(self.hydra, [*self.hydra_overrides, *overrides], config_name=self.config_name)


def hydra_problems(cfg: DictConfig) -> list[str]:
    """Return one message per Hydra setting that would put files somewhere other than the run folder."""
    return [
        f"hydra.{key} has no effect: the run folder follows from the settings; choose where runs go with "
        "paths.output_dir=<folder>, or name a single run's folder below it with paths.run_dir=<folder>"
        for key, expected in NOT_USED.items()
        if _written(cfg.hydra, key) != expected
    ]


def _written(node: DictConfig, key: str) -> Any:
    """Return the unresolved value at a dotted key: its references may only resolve inside a job."""
    group, _, name = key.rpartition(".")
    for part in group.split(".") if group else ():
        node = node[part]
    found = node._get_node(name)
    return None if found is None else found._value()
