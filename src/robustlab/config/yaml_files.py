"""Report YAML files that cannot be read: which file, where and why, on one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from robustlab.core.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


@contextmanager
def readable(hydra: Hydra) -> Iterator[None]:
    """Turn errors about files that are not YAML, or not UTF-8, into a ConfigError that names the file."""
    try:
        yield
    except yaml.YAMLError as error:
        raise ConfigError(_of_yaml(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(_not_utf8(hydra, error)) from error


def _of_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"a configuration file cannot be read as YAML: {' '.join(str(error).split())}"
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}"
    problem = str(getattr(error, "problem", None) or error)
    twice = re.search(r"duplicate key (.+)", problem)
    if twice:
        return f"{where}: duplicate key '{twice[1]}'; remove one of the two"
    if "'\\t'" in problem:
        return f"{where}: cannot be read as YAML: contains a tab; indent with spaces"
    advice = {
        "mapping values are not allowed here": "is the line aligned with its neighbours, and is text with ': ' quoted?",
        "expected <block end>, but found": "is the line aligned with its neighbours?",
    }
    more = next((f" ({text})" for start, text in advice.items() if problem.startswith(start)), "")
    return f"{where}: cannot be read as YAML: {problem}{more}"


def _not_utf8(hydra: Hydra, error: UnicodeDecodeError) -> str:
    folders = [
        item.path.removeprefix("file://")
        for item in hydra.config_loader.get_search_path().get_path()
        if not item.path.startswith(("pkg://", "structured://"))
    ]
    for path in (path for folder in folders for path in sorted(Path(folder).rglob("*.yaml"))):
        try:
            path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as found:
            return f"{path}: is not UTF-8 text ({found.reason} at byte {found.start}); save it as UTF-8"
    return f"a configuration file is not UTF-8 text ({error}); save it as UTF-8"
