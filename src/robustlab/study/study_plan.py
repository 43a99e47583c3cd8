"""Read a study: a YAML file with base overrides, grids of points, and runs that points need."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robustlab.core.errors import ConfigError
from robustlab.core.invocation import shell_line

KEYS = {"about": str, "base": str, "needs": dict, "points": list}
_REFERENCE = re.compile(r"@(\w+)")
_NAME = re.compile(r"[A-Za-z]\w*")


@dataclass(frozen=True)
class Point:
    """One run of a study.

    - overrides: overrides as recorded; `@name` stands for the folder of the run with this name in `needs`.
    - own: the overrides set by the point's grid, not by the base.
    - needs: name -> overrides of each run that must come first.
    """

    overrides: tuple[str, ...]
    own: tuple[str, ...] = ()
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command line, the same on every machine: no folders, no number of threads."""
        return shell_line(["train", *self.overrides])

    @property
    def key(self) -> str:
        """A unique key: the command, and the commands of the runs that it needs."""
        needed = (f"{name}: {shell_line(['train', *self.needs[name]])}" for name in sorted(self.needs))
        return "\n".join([self.command, *needed])

    @property
    def seed(self) -> int | None:
        """The seed that the command sets; None where it sets none."""
        text = setting(self.overrides, "seed")
        return int(text) if text is not None and text.lstrip("-").isdecimal() else None


@dataclass(frozen=True)
class Study:
    """A study: its name (that of the file), what it asks, and its points in the order of the file."""

    name: str
    about: str
    points: Sequence[Point]


def read_study(path: Path) -> Study:
    """Read and expand a study. Raises ConfigError that names the file and what is wrong in it."""
    content = _content(path)
    try:
        base = shlex.split(content.get("base", ""))
        needs = {name: _merge(base, shlex.split(text)) for name, text in content.get("needs", {}).items()}
        points = [one for line in content["points"] for one in _expand(base, shlex.split(line), needs)]
    except (ConfigError, ValueError) as error:  # ValueError: a quotation mark without its partner
        raise ConfigError(f"{path}: {error}") from error
    doubled = {point.command for point in points if sum(point.key == other.key for other in points) > 1}
    if doubled:
        raise ConfigError(f"{path}: {sorted(doubled)[0]} stands there more than once; remove one of its grids")
    return Study(path.stem, content.get("about", ""), points)


def key_of(override: str) -> str:
    """Return the key that an override sets, e.g. "seed" for "+seed=1"."""
    return override.partition("=")[0].lstrip("+~")


def setting(overrides: Iterable[str], key: str) -> str | None:
    """Return the value that overrides give to a key, as text; None where they do not set it."""
    return next((text.partition("=")[2] for text in overrides if key_of(text) == key), None)


def resolve(point: Point, folders: Mapping[str, str]) -> list[str]:
    """Return the overrides of a point with each `@name` replaced by the run folder of what it needs."""
    return [_REFERENCE.sub(lambda found: folders[found[1]], text) for text in point.overrides]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the study {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("points"), list) or not content["points"]:
        raise ConfigError(f"{path}: a study needs the list points, e.g. points: ['method=erm,elr seed=0,1,2']")
    for key, value in content.items():
        if key not in KEYS:
            raise ConfigError(f"{path}: there is no key {key}; a study has {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise ConfigError(f"{path}: {key} must be a {KEYS[key].__name__}, not {value!r}")
    named = {str(name): text for name, text in content.get("needs", {}).items()}
    for where, text in [
        *((f"needs.{name}", text) for name, text in named.items()),
        *(("points", text) for text in content["points"]),
    ]:
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{path}: {where}: expected overrides as for train -m, e.g. method=erm,elr, not {text!r}")
    for name in named:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{path}: needs.{name}: a name is one word, since points refer to it as @name")
    return {**content, **({"needs": named} if named else {})}


def _merge(base: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Return the base's overrides, with overrides of the same key replaced by the point's."""
    for text in own:
        if "=" not in text and not text.startswith("~"):
            raise ConfigError(f"{text!r} is not an override; write key=value")
    keys = {key_of(text) for text in own}
    return (*(text for text in base if key_of(text) not in keys), *own)


def _expand(base: Sequence[str], own: Sequence[str], needs: Mapping[str, Sequence[str]]) -> list[Point]:
    from hydra.errors import HydraException

    from robustlab.config.compose import expand

    merged = _merge(base, own)
    varied = {key_of(text) for text in own}
    try:
        expanded = expand(merged)
    except HydraException as error:
        raise ConfigError(f"{shell_line(own)}: {error}") from error
    points = []
    for overrides in expanded:
        used = {name for text in overrides for name in _REFERENCE.findall(text.partition("=")[2])}
        unknown = sorted(used - needs.keys())
        if unknown:
            raise ConfigError(
                f"{shell_line(own)}: @{unknown[0]} is not in needs, which has {', '.join(needs) or 'nothing'}"
            )
        points.append(
            Point(
                tuple(overrides),
                tuple(text for text in overrides if key_of(text) in varied),
                {name: _filled(name, needs[name], overrides) for name in sorted(used)},
            )
        )
    return points


def _filled(name: str, template: Sequence[str], overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of a needed run, where `@seed` stands for the seed of the point that needs it."""

    def value(found: re.Match[str]) -> str:
        text = setting(overrides, found[1])
        if text is None:
            raise ConfigError(f"needs.{name}: @{found[1]} has no value in the point {shell_line(overrides)}")
        return text

    return tuple(_REFERENCE.sub(value, text) for text in template)
