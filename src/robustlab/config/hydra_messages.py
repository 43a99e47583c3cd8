"""Reword errors of Hydra, its plugins and OmegaConf: on one line and in terms of what the user wrote."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence

from robustlab.config.hydra_session import all_options
from robustlab.config.wording import did_you_mean


def one_line(error: BaseException) -> str:
    """Return the message of an exception, or of its cause, on one line; without a message, say where it was raised."""
    text = str(error)
    if not text or text.startswith("Error merging override"):
        text = f"{text}: {error.__cause__ or _whereabouts(error)}".lstrip(": ")
    where = getattr(error, "full_key", None)
    if where and str(where) not in text.splitlines()[0]:
        text = f"{where}: {text}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = ("full_key:", "object_type=", "reference_type=", "Search path", "Config search path", "provider=")
    useful = [line for line in lines if not line.startswith(noise)]
    return " ".join(useful or lines)


def _whereabouts(error: BaseException) -> str:
    """Return the type of an exception and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    kind = type(error).__name__
    return f"{kind} at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else kind


def reworded(message: str, overrides: Sequence[str]) -> str:
    """Reword Hydra's messages about defaults lists, which assume that the reader knows how those work."""
    no_package = re.match(r"In '([^']+)': Could not override '(\w+)@[\w.]+\.\2'", message)
    if no_package:
        return f"{no_package[1]}.yaml: add `# @package _global_` as its first line, before `override /{no_package[2]}`"
    twice = re.match(r"Multiple values for ([\w/]+)\.", message)
    if twice:
        added = next((text for text in overrides if text.startswith(f"+{twice[1]}=")), None)
        if added:
            return f"{added}: {twice[1]} has an option already; write {added.lstrip('+')}"
        return f"{twice[1]} is chosen twice: in the defaults list of a file, write `- override /{twice[1]}: <option>`"
    missing = re.match(r"In '[^']+': Could not find '([\w/]+)/([^/']+)'", message)
    if missing:
        there = all_options(missing[1])
        hint = did_you_mean(missing[2], there) or f"; there is {', '.join(there) or 'none'}"
        return f"a defaults list names {missing[1]}={missing[2]}: there is no {missing[1]} '{missing[2]}'{hint}"
    return _with_override(message, overrides)


def _with_override(message: str, overrides: Sequence[str]) -> str:
    """Prefix the override that contains a broken reference to a message that does not name its key."""
    broken = re.match(r"Interpolation key '([^']+)' not found|Unsupported interpolation type (\w+)|Recursive", message)
    if broken is None:
        return message
    name = broken[1] or broken[2] or ""
    return next((f"{text}: {message}" for text in overrides if f"${{{name}" in text), message)
