"""Read and flatten the settings of runs, and find the ones that distinguish runs, in command-line syntax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustlab.config.run_names import NOT_IDENTITY, NOT_IDENTITY_NESTED

SHOWN = 4
"""Maximum number of settings in a name."""
_MISSING = object()


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's resolved settings as {"method.temperature": 0.5, ...}, without what does not change the results.

    That is: what the run's name does not depend on, and whatever repeats the seed. Paths of this machine are all alike.
    """
    paths = [value for value in (config.get("paths") or {}).values() if isinstance(value, str) and value]
    seed = config.get("seed")

    def walk(value: Any, name: str) -> None:
        if name in NOT_IDENTITY or name in NOT_IDENTITY_NESTED or (name.endswith(".seed") and value == seed):
            return
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                walk(item, f"{name}.{key}" if name else str(key))
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                walk(item, f"{name}[{index}]")
        else:
            is_path = isinstance(value, str) and any(value.startswith(path) for path in paths)
            flat[name] = "(a path)" if is_path else value

    flat: dict[str, Any] = {}
    walk(config, "")
    return flat


def varying(flats: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings in which runs differ, in their order.

    For a group of options (optimizer, noise, ...) these are the option itself, and settings that differ between runs
    with the same option; differences implied by the option are left out.
    """
    found = []
    for key in dict.fromkeys(key for flat in flats for key in flat):
        values: dict[Any, set[str]] = {}
        for flat in flats:
            option = None if _is_option(key) else _option(flat, key.partition(".")[0])
            values.setdefault(option, set()).add(repr(flat.get(key, _MISSING)))
        if any(len(different) > 1 for different in values.values()):
            found.append(key)
    return found


def in_words(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return settings as the command line has them, e.g. "optimizer.lr=0.1 trainer.epochs=8"; classes by their name."""
    targets = {key.removesuffix("._target_") for key in keys if key.endswith("._target_")}
    words = []
    for key in keys:
        name, value = key.removesuffix("._target_"), settings[key]
        if name != key:
            value = str(value).rpartition(".")[2]
        elif key.endswith(".name") and key.removesuffix(".name") in targets:
            continue  # a second name for the same
        words.append(f"{name.removesuffix('.name')}={short(value)}")
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return " ".join(words[:SHOWN]) + more


def short(value: Any) -> str:
    """Return a setting's value as text of at most 40 characters."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _is_option(key: str) -> bool:
    return key.endswith((".name", "._target_"))


def _option(flat: Mapping[str, Any], group: str) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in flat.items() if key.startswith(f"{group}.") and _is_option(key))
