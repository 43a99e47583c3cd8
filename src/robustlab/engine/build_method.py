"""Build a method from a checked configuration, check it against the data, and let it make its learners."""

from __future__ import annotations

from omegaconf import DictConfig

from robustlab.config.build import build, need
from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.engine.method import Context, Method
from robustlab.engine.new_learner import NewLearner


def make_method(cfg: DictConfig, *, processes: int) -> Method:
    """Create the method from its settings. Raises ConfigError for a bad value or too many processes."""
    method: Method = need(build(cfg.method), Method, "method", cfg.method._target_)
    if method.single_process is not None and processes > 1:
        raise ConfigError(
            f"method={cfg.method.name} supports one process, not {processes}: {method.single_process}; "
            "start it without torchrun, or with one task"
        )
    return method


def check_provided(method: Method, cfg: DictConfig, provided: frozenset[str]) -> None:
    """Raise ConfigError if the data does not provide what the method requires."""
    missing = method.requires - provided
    if missing:
        raise ConfigError(
            f"method={cfg.method.name} needs {', '.join(sorted(missing))}, which dataset={cfg.dataset.name} does not "
            f"provide (it provides: {', '.join(sorted(provided)) or 'images and labels only'}); choose another method "
            "or data set"
        )


def build_method(cfg: DictConfig, data: Data, runtime: Runtime) -> Method:
    """Create the method, check that the data provides what it requires, and build its learners."""
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
            new_learner=NewLearner(cfg, data.task, runtime, projection_dim=method.projection_dim),
        )
    )
    return method
