"""Identify the run that a folder holds, without importing torch, so that no command mistakes it for another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from robustlab.config.contents import changed_contents, contents
from robustlab.config.dotted import flat
from robustlab.config.layouts import as_first_written, flat_in_todays_words, in_todays_words
from robustlab.config.run_names import NOT_IDENTITY, NOT_IDENTITY_NESTED, identity, normalised, run_name

IDENTITY_KEY = "identity"
"""Key of `record.json` that holds a run's identity."""

CONTENTS = "contents"
"""Key of an identity that holds the digests of files; see `config.contents`."""

HISTORY = ("extended_from", "forced")
"""Keys of an identity and of results that record interventions in a run; absent if there were none."""

EPOCHS = "trainer.epochs"
_SHOWN = 8
_UNKNOWN = "(not there)"


@dataclass(frozen=True)
class Occupant:
    """The run in a folder, started or finished.

    - settings: dotted key -> value, including the seed, under the names they were first written with; None if unknown.
    - is_exact: whether the settings come from `resolvers.identity` and not from config.yaml, where paths and seeds are
      already resolved.
    - run_name, seed: those of a finished run whose settings never changed, else None.
    - extended_from: the numbers of epochs that the run was previously planned for.
    - forced: what `resume=force` changed.
    - contents: key -> digest of the file that it names.
    """

    is_finished: bool
    settings: Mapping[str, Any] | None
    is_exact: bool
    run_name: str | None
    seed: int | None
    extended_from: tuple[int, ...] = ()
    forced: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)

    @property
    def past(self) -> dict[str, list[Any]]:
        """The keys of `HISTORY` that apply to this run, with their values."""
        values = {"extended_from": list(self.extended_from), "forced": list(self.forced)}
        return {key: value for key, value in values.items() if value}

    @property
    def history(self) -> str:
        """A description of how the result differs from an uninterrupted run's; empty if it does not."""
        return describe_history(self.past)


def describe_history(past: Mapping[str, Any]) -> str:
    """Describe the interventions in a run.

    - past: mapping that may contain the keys of `HISTORY`.
    """
    parts = [f"extended from trainer.epochs={epochs}" for epochs in past.get("extended_from", ())]
    return "; ".join([*parts, *(f"changed by force ({text})" for text in past.get("forced", ()))])


def read_occupant(folder: Path) -> Occupant | None:
    """Return the run that a folder holds, or None. Damaged files are treated as missing."""
    results, record = _read(folder / "results.json"), _read(folder / "record.json")
    saved = (record or {}).get(IDENTITY_KEY) or {}
    is_exact = isinstance(saved, Mapping) and isinstance(saved.get("settings"), Mapping)
    config = None if is_exact else _read(folder / "config.yaml")  # older folders store their identity only there
    if results is None and record is None and config is None:
        return None
    settings: Mapping[str, Any] | None = None
    if is_exact:
        settings = {"seed": saved["seed"], **saved["settings"]}
    elif config:
        settings = of_resolved(config)
    finished = results if results and results.get("finished") else {}
    history = saved if is_exact else finished
    extended, forced = tuple(history.get("extended_from", ())), tuple(history.get("forced", ()))
    name, seed = (None, None) if extended or forced else (finished.get("run_name"), finished.get("seed"))
    known = saved.get(CONTENTS, {}) if is_exact else {}
    return Occupant(bool(finished), settings, is_exact, name, seed, extended, forced, known)


def refusal(folder: Path, cfg: DictConfig) -> str | None:
    """Return why the run of a composed configuration may not use a folder, or None if it may.

    It may if the folder is free, holds the same run, or is started over with `resume=false`. With `resume=force` an
    unfinished run continues with changed settings, and a finished one with more epochs.
    """
    occupant = read_occupant(folder) if cfg.resume else None
    if occupant is None or (cfg.resume == "force" and not occupant.is_finished):
        return None
    differ = differences(occupant, cfg)
    kind = "a finished run" if occupant.is_finished else "a run"
    if differ is None:
        return (
            f"{folder} holds {kind} whose settings are not recorded in any file; choose another folder with "
            "paths.run_dir=..., or start over there with resume=false"
        )
    if not differ:
        if occupant.history and occupant.is_finished and cfg.resume != "force":
            return (
                f"{folder} holds a run with these settings, but not one uninterrupted run: it was {occupant.history}. "
                "Show its result with resume=force, choose another folder with paths.run_dir=..., or start over there "
                "with resume=false"
            )
        return None
    if is_extension(occupant, cfg):
        if cfg.resume == "force":
            return None
        before = (occupant.settings or {})[EPOCHS]
        return (
            f"{folder} holds {kind} that differs only in trainer.epochs ({before} there, {cfg.trainer.epochs} now). "
            "Extend it with resume=force (the result is marked extended_from), choose another folder with "
            "paths.run_dir=..., or start over there with resume=false"
        )
    went = f" (it was {occupant.history})" if occupant.history else ""
    ways = "Choose another folder with paths.run_dir=... (by default every run has its own), "
    ways += "or start over there with resume=false"
    if not occupant.is_finished:
        ways += ", or continue anyway with resume=force: the result then differs from an uninterrupted run's"
    return f"{folder} holds {kind} saved with different settings{went}:{listed(differ)}\n{ways}"


def differences(occupant: Occupant, cfg: DictConfig) -> dict[str, str] | None:
    """Return key -> message for each setting that differs from a configuration; None if the settings are unknown."""
    seed = int(cfg.seed)
    changed = changed_contents(occupant.contents, contents(cfg)) if occupant.contents else {}
    if occupant.run_name is not None and occupant.seed == seed and occupant.run_name == run_name(cfg):
        return changed
    if occupant.settings is None:
        return None
    if occupant.is_exact:
        return compared_settings(occupant.settings, {"seed": seed, **flat(identity(cfg))}) | changed
    differ = compared_settings(occupant.settings, of_resolved(plain(cfg)))
    if not differ and occupant.run_name not in (None, run_name(cfg)):  # a difference that config.yaml does not show
        return {"run_name": f"run_name: {occupant.run_name} when it was saved, now {run_name(cfg)}"}
    return differ


def is_done(cfg: DictConfig) -> bool:
    """Return whether a run is already finished, given that `refusal` accepts its folder."""
    folder = Path(cfg.paths.run_dir).expanduser()
    occupant = read_occupant(folder) if cfg.resume else None
    return occupant is not None and occupant.is_finished and not differences(occupant, cfg)


def is_extension(occupant: Occupant, cfg: DictConfig) -> bool:
    """Return whether only `trainer.epochs` (and settings that refer to it) differs, and has grown."""
    before = (occupant.settings or {}).get(EPOCHS)
    if not isinstance(before, int) or before >= cfg.trainer.epochs:
        return False
    return differences(occupant, with_epochs(cfg, before)) == {}


def with_epochs(cfg: DictConfig, epochs: int) -> DictConfig:
    """Return a copy of a composed configuration with another number of epochs."""
    other = cfg.copy()
    other._set_flag("readonly", False)
    with open_dict(other):
        other.trainer.epochs = epochs
    return other


def compared(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return key -> message for each differing value; if a group's option differs, only the group's name."""
    differing = [key for key in {**before, **now} if before.get(key, _UNKNOWN) != now.get(key, _UNKNOWN)]
    other_options = {key.removesuffix("name") for key in differing if key.endswith(".name") and key.count(".") == 1}
    shown = [key for key in differing if f"{key.partition('.')[0]}." not in other_options or key.endswith(".name")]
    shown.sort(key=lambda key: (key != "seed", not key.endswith(".name"), key))
    return {key: f"{key}: {before.get(key, _UNKNOWN)} when it was saved, now {now.get(key, _UNKNOWN)}" for key in shown}


def compared_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Do the same as `compared`, but under today's names, for settings under their first names (`config.layouts`)."""
    return compared(flat_in_todays_words(before), flat_in_todays_words(now))


def listed(differ: Mapping[str, str]) -> str:
    """Return the first differences as indented lines."""
    lines = [f"\n  {text}" for text in differ.values()]
    more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "".join(lines[:_SHOWN]) + more


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain types, without Hydra's own node."""
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    resolved.pop("hydra", None)
    return {str(key): value for key, value in resolved.items()}


def of_resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value for a resolved configuration, without seeds and paths brought in by references.

    - config: in today's or any earlier layout; the result uses the names that settings were first written with.
    """
    config = in_todays_words(config)
    seed, paths = config.get("seed"), config.get("paths") or {}
    places = sorted((str(place) for place in paths.values() if place), key=len, reverse=True)

    def freed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: freed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [freed(item) for item in value]
        if isinstance(value, str):
            return next((value[len(place) :] for place in places if value.startswith(place)), value)
        return value

    own = normalised({key: freed(item) for key, item in config.items() if key not in NOT_IDENTITY})
    for key in NOT_IDENTITY_NESTED:
        group, name = key.split(".")
        if isinstance(own.get(group), dict):
            own[group].pop(name, None)
    kept = flat(as_first_written(own))
    kept = {key: 0 if key.endswith(".seed") and value == seed else value for key, value in kept.items()}
    return {"seed": seed, **kept}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix == ".json" else OmegaConf.to_container(OmegaConf.create(text))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return None
    return content if isinstance(content, dict) else None
