"""Read from a method's YAML its display name, and whether it is a baseline for others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from robustlab.config.hydra_session import conf_dir


def label_of(results: Mapping[str, Any]) -> str:
    """Return the display label of the method in `results.json`: the run's own, or that of today's YAML, or its name."""
    name = str(results["method"])
    return str(results.get("method_label") or _own(name).get("label") or name)


def reference_of(name: str) -> int:
    """Return the place of a method among those that others are compared with: 1, 2, ...; 0 for all others."""
    return int(_own(name).get("reference") or 0)


def references() -> tuple[str, ...]:
    """Return the names of the methods that others are compared with, in order."""
    names = (path.stem for path in (conf_dir() / "method").glob("*.yaml"))
    return tuple(sorted((name for name in names if reference_of(name)), key=reference_of))


@cache
def _own(name: str) -> Mapping[str, Any]:
    path = conf_dir() / "method" / f"{name}.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}
