"""The configurations that a run left in its folder, in today's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from robustlab.config.layouts import in_todays_words


def read_config(folder: Path) -> dict[str, Any]:
    """Return a run's resolved configuration, in today's words; empty if there is none that can be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return in_todays_words(config) if isinstance(config, dict) else {}


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """Return what record.json has of each start of a run, with its configuration in today's words.

    Raises OSError where the file cannot be read, ValueError, KeyError or TypeError where it is damaged.
    """
    starts = json.loads((folder / "record.json").read_bytes())["starts"]
    return [{**start, "config": in_todays_words(start["config"])} for start in starts]
