"""From a group of settings with a `_target_` to the object that it names. `_target_` is the only registry."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from robustlab.config.schema import LABELS
from robustlab.config.static.signature import import_target
from robustlab.core.errors import ConfigError, UserError


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
