"""What a run is started with and made of, before any file of it is written."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import DictConfig

from robustlab.core.console import say
from robustlab.core.runtime import Runtime
from robustlab.core.signals import StopFlag
from robustlab.data.run_data import Data
from robustlab.engine.build_method import build_method
from robustlab.engine.diagnostic import Diagnostic, build_diagnostics
from robustlab.engine.measured import check_metric
from robustlab.engine.method import Method
from robustlab.engine.preflight import check_beside, check_parts
from robustlab.engine.read_data import read_data
from robustlab.engine.selection import rules_for
from robustlab.engine.trainer_settings import LoopSettings
from robustlab.tracking.noise_line import noise_line


@dataclass(frozen=True)
class Around:
    """What a run is started with beside its own settings.

    group: the sweep it is a point of. beside: the configuration that `compare` names, which is to run next on the same
    data and is checked before this one's first step. is_checked: `check_parts` has looked at this run.
    """

    runtime: Runtime
    stop: StopFlag
    group: str | None = None
    beside: DictConfig | None = None
    is_checked: bool = False


@dataclass(frozen=True)
class Built:
    """What a run is made of."""

    data: Data
    method: Method
    diagnostics: Mapping[str, Diagnostic]
    settings: LoopSettings


def build_run(cfg: DictConfig, around: Around) -> Built:
    """Read the data and build the method, after all that can be checked without data; nothing is written."""
    runtime = around.runtime
    if not around.is_checked:
        check_parts(cfg)
    with around.stop.at_once() if runtime.world_size == 1 else contextlib.nullcontext():  # ranks must stop together
        data = read_data(cfg, runtime)
    if around.beside is not None:
        check_beside(around.beside, cfg, data, runtime)
    say(noise_line(data.noise_record(), samples=len(data.train_indices)))
    method = build_method(cfg, data, runtime)
    diagnostics = build_diagnostics(cfg, method)
    settings = LoopSettings.from_config(cfg.trainer, selection=rules_for(data, cfg.trainer.selection))
    check_metric(cfg.get("optimized_metric"), method, data, by_class="ig" in settings.selection)
    return Built(data, method, diagnostics, settings)
