"""The configuration that a run left in its folder."""

from __future__ import annotations

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
