"""Build the parts of a run before writing any of its files."""

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
    """The circumstances of a run's start, apart from its settings.

    - group: the sweep that it is a point of.
    - beside: configuration of the baseline (`compare`), which runs next on the same data and is checked before this
      run's first step.
    - is_checked: whether `check_parts` has already accepted this run.
    """

    runtime: Runtime
    stop: StopFlag
    group: str | None = None
    beside: DictConfig | None = None
    is_checked: bool = False


@dataclass(frozen=True)
class Built:
    """The parts of a run."""

    data: Data
    method: Method
    diagnostics: Mapping[str, Diagnostic]
    settings: LoopSettings


def build_run(cfg: DictConfig, around: Around) -> Built:
    """Read the data and build the method, after every check that needs no data; write nothing."""
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
