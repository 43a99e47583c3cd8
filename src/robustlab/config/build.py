"""Build the object that a group of settings names with `_target_`, the only registry."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from robustlab.config.schema import LABELS
from robustlab.config.static.signature import import_target
from robustlab.core.errors import ConfigError, UserError


def build(node: Any, **runtime_arguments: Any) -> Any:
    """Instantiate a `_target_` node, leaving out its `LABELS`, which are not arguments.

    Raises ConfigError for a bad value. A constructor's ValueError or UserError is unwrapped from Hydra's exception.
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
    """Raise ConfigError with the reason why a `_target_` cannot be imported, which Hydra does not show."""
    try:
        import_target(target)
    except Exception as error:  # anything that a user's module may raise
        raise ConfigError(f"_target_ {target}: cannot be imported: {type(error).__name__}: {error}") from error


def need(made: Any, kind: type | tuple[type, ...], key: str, target: str) -> Any:
    """Return the object that a `_target_` made. Raises ConfigError if its class does not fit its key."""
    if isinstance(made, kind):
        return made
    names = " or ".join(
        f"{one.__module__}.{one.__qualname__}" for one in (kind if isinstance(kind, tuple) else (kind,))
    )
    raise ConfigError(f"{key}._target_: {target} made {type(made).__name__!r}; expected an instance of {names}")
