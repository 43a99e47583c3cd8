"""Parse the flags of `train`, which may appear anywhere among the overrides, and explain unknown ones."""

from __future__ import annotations

import difflib
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from robustlab.config.wording import did_you_mean
from robustlab.core.errors import ConfigError
from robustlab.core.invocation import hint

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


def train_parser() -> ArgumentParser:
    """Return Hydra's parser, without abbreviated flags and with errors raised as ConfigError instead of printed."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.prog, parser.allow_abbrev = hint("train"), False
    parser.error = _refuse  # type: ignore[method-assign]
    return parser


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see `{hint('train', '--help')}`")


@dataclass(frozen=True)
class UnknownFlag:
    """A flag that does not exist: the words on the command line, its name, and its value if it has one."""

    words: str
    name: str
    value: str | None


def read_flags(parser: ArgumentParser, argv: Sequence[str]) -> tuple[Namespace, list[UnknownFlag]]:
    """Return the flags and overrides of a command line, and the flags among them that do not exist.

    Raises ConfigError for a flag with a missing or wrong value.
    """
    args, extra = parser.parse_known_intermixed_args(list(argv))
    unknown = []
    for word in extra:
        name, has_value, value = word.partition("=")
        following = [*argv, ""][list(argv).index(word) + 1] if word in argv else ""
        if has_value or not following or "=" in following or _is_flag(following):
            unknown.append(UnknownFlag(word, name, value if has_value else None))
            continue
        unknown.append(UnknownFlag(f"{word} {following}", name, following))
        args.overrides = [text for text in args.overrides if text != following]
    return args, unknown


def _is_flag(word: str) -> bool:
    return re.match(r"-[^\d.]", word) is not None


def explain_unknown(
    hydra: Hydra, parser: ArgumentParser, unknown: Sequence[UnknownFlag], overrides: Sequence[str]
) -> list[str]:
    """Return one message per unknown flag, naming the setting or flag that was most likely meant.

    - overrides: the rest of the command line, which determines which settings exist.
    """
    flags = sorted(flag for action in parser._actions for flag in action.option_strings if flag.startswith("--"))
    keys = _settings(hydra, overrides)
    return [_explain(flag, flags, keys) for flag in unknown]


def _explain(flag: UnknownFlag, flags: Sequence[str], keys: Sequence[str]) -> str:
    as_flag, as_key = flag.name.replace("_", "-"), flag.name.lstrip("-").replace("-", "_")
    key = _nearest_key(as_key, keys)
    near_flag = difflib.get_close_matches(as_flag, flags, n=1, cutoff=0.8)
    if key is None or (near_flag and key.rpartition(".")[2] != as_key):
        return f"unknown flag {flag.name}{did_you_mean(as_flag, flags) or '; settings are written key=value'}"
    value = "<value>" if flag.value is None else flag.value
    return (
        f"{flag.words}: settings are written without dashes, {key}={value} "
        "(in a W&B sweep, with ${args_no_hyphens} in its command)"
    )


def _nearest_key(name: str, keys: Sequence[str]) -> str | None:
    """Return the setting that a flag names in full or by its last part; if several match, the least nested one."""
    if name in keys:
        return name
    by_last: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        by_last.setdefault(key.rpartition(".")[2], key)
    if name in by_last:
        return by_last[name]
    ends = [key for key in keys if key.endswith(f".{name}")]
    if ends:
        return min(ends, key=len)
    near = difflib.get_close_matches(name, [*keys, *by_last], n=1, cutoff=0.8)
    return by_last.get(near[0], near[0]) if near else None


def _settings(hydra: Hydra, overrides: Sequence[str]) -> list[str]:
    """Return all groups and all keys of the configuration composed from these overrides, or else from the defaults."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from robustlab.config.check import dotted_keys
    from robustlab.config.hydra_session import load, without_hydra

    groups = [group for group in _groups(hydra) if not group.startswith("hydra")]
    for tried in (list(overrides), []):
        try:
            plain = OmegaConf.to_container(without_hydra(load(hydra, tried)))
        except (HydraException, OmegaConfBaseException):  # other problems are reported once the flags are right
            continue
        return [*groups, *dotted_keys(plain)]
    return groups


def _groups(hydra: Hydra, parent: str = "") -> list[str]:
    """Return all groups with options; faster than `Hydra.list_all_config_groups`, which copies its search path."""
    from hydra.core.object_type import ObjectType

    listed = hydra.config_loader.repository.get_group_options  # type: ignore[attr-defined]
    found: list[str] = []
    for name in listed(parent, ObjectType.GROUP):
        group = f"{parent}/{name}" if parent else name
        found += [*([group] if listed(group, ObjectType.CONFIG) else []), *_groups(hydra, group)]
    return found
