"""Explain why Hydra does not compose some overrides: every problem, each with a fix and the nearest name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustlab.config.check import problems
from robustlab.config.hydra_messages import one_line, reworded
from robustlab.config.hydra_session import all_options, is_group, is_option, load, options, without_hydra
from robustlab.config.wording import did_you_mean

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.core.override_parser.types import Override


def explain(hydra: Hydra, overrides: Sequence[str], error: Exception, *, sweep: bool = False) -> list[str]:
    """Return one message per problem in `overrides`, whose composition failed with `error`.

    - sweep: whether an override may name several values.
    """
    parsed, found = _parse(overrides)
    suspects: set[str] = set()
    for override in parsed:
        message = _group_problem(hydra, override) or (None if sweep else _sweep_problem(override))
        if message:
            found.append(message)
            suspects.add(override.key_or_group)
    kept = [override for override in parsed if override.key_or_group.split(".")[0] not in suspects]
    if "experiment" not in suspects:
        found += _problems_if_let_through(hydra, kept)
    return found or [reworded(one_line(error), overrides)]


def clashes(hydra: Hydra, overrides: Sequence[str]) -> list[str]:
    """Return one message for each pair of experiments that choose different options of a group."""
    found = []
    for override in _parse([text for text in overrides if "=[" in text])[0]:
        group, names = override.key_or_group, override.value()
        if not is_group(group) or not isinstance(names, list):
            continue
        chosen: dict[str, tuple[str, str]] = {}
        for name in map(str, names):
            for other, option in _choices(hydra, f"{group}/{name}").items():
                first = chosen.setdefault(other, (name, option))
                if first[1] != option:
                    found.append(
                        f"{override.input_line}: '{first[0]}' chooses {other}={first[1]}, '{name}' {other}={option}; "
                        f"keep one of them, or decide with {other}=<option>"
                    )
    named = {override.key_or_group for override in _parse(overrides)[0]}
    return [message for message in found if not any(f" with {group}=" in message for group in named)]


def _choices(hydra: Hydra, path: str, depth: int = 0) -> dict[str, str]:
    """Return the options that a file chooses with `override /group: option`, directly or through files it includes."""
    loaded = hydra.config_loader.repository.load_config(path)  # type: ignore[attr-defined]
    found: dict[str, str] = {}
    for item in (loaded.defaults_list or []) if loaded is not None and depth < 8 else []:
        value = getattr(item, "value", None)
        if getattr(item, "override", False) and isinstance(value, str):
            found[str(item.group).lstrip("/")] = value
        elif isinstance(value, str):
            found |= _choices(hydra, f"{item.group or path.rpartition('/')[0]}/{value}".lstrip("/"), depth + 1)
        elif getattr(item, "path", None) not in (None, "_self_"):
            found |= _choices(hydra, f"{path.rpartition('/')[0]}/{item.path}", depth + 1)
    return found


def no_options(hydra: Hydra, overrides: Sequence[str]) -> list[str]:
    """Return one message for each option that must not reach Hydra.

    Hydra would follow a path that leads out of the group's folder, and would fail with a Python exception on values
    that are not names (null, numbers, booleans).
    """
    nameless = [f"'{text}': no key before the '='; write key=value" for text in overrides if text.startswith("=")]
    if nameless:
        return nameless
    odd = [text for text in overrides if ".." in text or _NO_NAME.search(text.partition("=")[2].strip("[]"))]
    return [message for override in _parse(odd)[0] if (message := _path_problem(override) or _no_name(hydra, override))]


_NO_NAME = re.compile(r"(^|,)(null|true|false|[-+]?[0-9.]+(e[-+]?[0-9]+)?|[-+]?(inf|nan))(,|$)", re.IGNORECASE)
"""Values that Hydra's override grammar does not read as text."""


def _no_name(hydra: Hydra, override: Override) -> str | None:
    if override.is_sweep_override():
        return None
    value = override.value()
    names = value if isinstance(value, list) else [value]
    return None if all(isinstance(name, str) for name in names) else _group_problem(hydra, override)


def _every_group(hydra: Hydra) -> list[str]:
    return sorted({*hydra.list_all_config_groups(), *hydra.config_loader.list_groups("")})


def _parse(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, parsed, found = OverridesParser.create(), [], []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            if "=" not in text:
                found.append(f"'{text}' is not a setting; write key=value{did_you_mean(text, _FLAGS)}")
            else:
                reason = one_line(error).partition("See https")[0].strip()
                key, _, value = text.partition("=")
                structure = any(character in value for character in "[]{}()'\"\\$")
                quoted = "key=\\'a,b\\'" if structure else f"\"{key}='{value}'\""
                found.append(f"'{text}' cannot be read as key=value ({reason}); quote special characters: {quoted}")
    return parsed, found


_FLAGS = ("--help", "--cfg", "--multirun", "--info", "--config-dir", "--resolve")


def _group_problem(hydra: Hydra, override: Override) -> str | None:
    name = override.key_or_group
    if not is_group(name):
        if "/" in name or override.package is not None:
            return f"{override.input_line}: there is no group '{name}'{did_you_mean(name, _every_group(hydra))}"
        return None
    if override.is_delete() or override.is_sweep_override():
        return None
    if message := _path_problem(override):
        return message
    value = override.value()
    there = options(name)
    for option in value if isinstance(value, list) else [value]:
        path = str(option).removesuffix(".yaml")
        if isinstance(option, dict):
            return (
                f"{override.input_line}: {name} takes the name of an option; set single keys with {name}.<key>=<value>"
            )
        if option is None or not _exists(name, path, there):
            shown, known = "null" if option is None else option, all_options(name)
            hint = _values_moved(name, path, known) or did_you_mean(path.lower(), known)
            hint = hint or f"; there is {', '.join(known) or 'none'}"
            return f"{name}={shown}: there is no {name} '{shown}'{hint}"
    return None


def _values_moved(group: str, path: str, known: Sequence[str]) -> str:
    """Say where to find the values that an option such as method=crosssplit/cifar100 asks for."""
    method, _, data = path.partition("/")
    if group != "method" or not data or method not in known:
        return ""
    variants = [name for name in known if name.startswith(f"{method}/")]
    if variant := difflib.get_close_matches(path, variants, n=1, cutoff=0.8):
        return f"; did you mean '{variant[0]}'?"
    settings = [name for name in all_options("setting") if is_option("overlay", f"{name}/{method}")]
    near = [name for name in settings if data in name] or difflib.get_close_matches(data, settings, n=1, cutoff=0.6)
    end = f" with setting={near[0]}?" if near else "? Its values for a data set come with setting=..."
    return f"; did you mean '{method}'{end if settings else '?'}"


def _path_problem(override: Override) -> str | None:
    name, text = override.key_or_group, (override.input_line or "").partition("=")[2]
    if is_group(name) and ".." in re.split(r"[/,]", text):
        return f"{name}={text}: an option is a name inside {name}/, not a path that leads out of it"
    return None


def _exists(group: str, option: str, there: Sequence[str]) -> bool:
    if "/" in option:
        parent, _, name = option.rpartition("/")
        return name in options(f"{group}/{parent}")
    return option in there


def empty_sweeps(hydra: Hydra, overrides: Sequence[str]) -> list[str]:
    """Return one message for each override without any value, such as a glob that matches nothing."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    found = []
    for override in OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(overrides)):
        if override.is_sweep_override() and not any(True for _ in override.sweep_string_iterator()):
            name = override.key_or_group
            there = f"; there is {', '.join(all_options(name))}" if is_group(name) else ""
            found.append(f"{override.input_line}: no values, so the sweep has no points{there}")
    return found


def intervals(overrides: Sequence[str]) -> list[str]:
    """Return one message for each override that names an interval, from which only a search can choose values."""
    return [_interval_problem(override) for override in _parse(overrides)[0] if override.is_interval_sweep()]


def _interval_problem(override: Override) -> str:
    ends = override.value()
    return (
        f"{override.input_line}: an interval needs a search sweeper, such as -m hydra/sweeper=optuna; list the "
        f"values instead, e.g. {override.get_key_element()}={ends.start},{ends.end}"  # type: ignore[union-attr]
    )


def _sweep_problem(override: Override) -> str | None:
    if not override.is_sweep_override():
        return None
    if override.is_interval_sweep():
        return _interval_problem(override)
    key, text = override.key_or_group, override.input_line or ""
    values = text.partition("=")[2]
    return f"{text}: names several values; add -m to run each of them, or write {key}=[{values}] for a list"


def _problems_if_let_through(hydra: Hydra, overrides: Sequence[Override]) -> list[str]:
    """Return what the check says once unknown keys are let through: it can suggest the nearest names."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    lenient = []
    for override in overrides:
        text = override.input_line or ""
        free = not is_group(override.key_or_group) and not override.is_delete() and not override.is_hydra_override()
        lenient.append(f"++{text.lstrip('+')}" if free else text)
    try:
        return problems(without_hydra(load(hydra, lenient)))
    except (HydraException, OmegaConfBaseException):
        return []
