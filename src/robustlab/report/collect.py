"""Finds the runs below a folder and groups those that differ in nothing but the seed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robustlab.config.resolvers import NOT_IDENTITY, NOT_IDENTITY_NESTED
from robustlab.errors import ConfigError
from robustlab.report.groups import group_notes
from robustlab.report.statistics import Estimate, estimate
from robustlab.tracking.jsonl import decode_number

SET_ASIDE = re.compile(r".*\.old\d+")
"""Run folders that `resume=false` has moved aside."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and the content of its `results.json`."""

    folder: Path
    results: Mapping[str, Any]

    @property
    def setting(self) -> tuple[str, str, str]:
        """Data set, label noise and model, in words."""
        return str(self.results["dataset"]), noise_label(self.results.get("noise")), str(self.results["model"])

    def value(self, metric: str, rule: str) -> float | None:
        """Return a metric under a selection rule; diagnostics exist under the rule "last" only."""
        row = self.results["selection"].get(rule)
        if row is None:
            return None
        value = row.get(metric, self.results["final"].get(metric) if rule == "last" else None)
        value = decode_number(value)
        return float(value) if isinstance(value, int | float) else None


@dataclass
class Group:
    """Runs that differ in nothing but the seed."""

    method: str
    setting: tuple[str, str, str]
    run_name: str
    runs: dict[int, Run] = field(default_factory=dict)
    variant: str = ""
    """The settings' hash, where another group has the same method and setting; else empty."""

    @property
    def label(self) -> str:
        """The method, with the hash of its settings where that is needed to tell groups apart."""
        return f"{self.method} [{self.variant}]" if self.variant else self.method


@dataclass(frozen=True)
class Column:
    """A further column of the table: its heading, its name in a CSV, and whether it holds shares, shown in per cent."""

    heading: str
    name: str
    share: bool = True


@dataclass(frozen=True)
class Entry:
    """One cell of the table, and what is known of the same runs for its further columns."""

    group: Group
    estimate: Estimate
    seeds: tuple[int, ...]
    further: Mapping[Column, Estimate] = field(default_factory=dict)


@dataclass
class Report:
    """The entries of a table and remarks on what is not in it or needs care."""

    metric: str
    rule: str
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: Sequence[Column] = ()


def find_runs(root: Path) -> tuple[list[Run], list[Path]]:
    """Return the finished runs below `root` and the folders of unfinished ones, both in order of their paths.

    Raises ConfigError if `root` is no folder or holds no run at all.
    """
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; give the folder that holds the runs, e.g. outputs/")
    finished: list[Run] = []
    unfinished: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not SET_ASIDE.fullmatch(name))
        if "config.yaml" not in files and "results.json" not in files:
            continue
        folders.clear()  # there are no runs inside a run
        results = _read_results(Path(folder)) if "results.json" in files else None
        if results is None:
            unfinished.append(Path(folder))
        else:
            finished.append(Run(Path(folder), results))
    if not finished and not unfinished:
        raise ConfigError(f"there are no runs in {root}; give the folder that holds them, e.g. outputs/")
    return finished, unfinished


def collect(root: Path, *, metric: str = "test/accuracy", rule: str = "last") -> Report:
    """Return the table of one metric under one selection rule over all finished runs below `root`.

    Raises ConfigError if there is nothing to show: no run, none that is finished, none that has the metric.
    """
    runs, unfinished = find_runs(root)
    if not runs:
        raise ConfigError(f"none of the {len(unfinished)} runs in {root} is finished; run the same commands again")
    report = Report(metric, rule)
    groups = group_runs(runs, report.notes)
    without = 0
    for group in groups:
        values = {seed: run.value(metric, rule) for seed, run in sorted(group.runs.items())}
        known = {seed: value for seed, value in values.items() if value is not None}
        without += len(values) - len(known)
        if known:
            report.entries.append(Entry(group, estimate(list(known.values())), tuple(known)))
    if not report.entries:
        names = sorted({name for run in runs for name in run.results["selection"].get(rule, {}) if name != "epoch"})
        have = f"with this rule there are {', '.join(names)}" if names else "choose another rule"
        raise ConfigError(f"no finished run in {root} has {metric} under the rule {rule}; {have}")
    report.notes += group_notes(metric, [run.results for entry in report.entries for run in entry.group.runs.values()])
    if without:
        report.notes.append(f"{_count(without, 'finished run')} without {metric} under the rule {rule}: not shown")
    if unfinished:
        report.notes.append(f"{_count(len(unfinished), 'unfinished run')}, not shown: {_listed(unfinished, root)}")
    return report


def noise_label(noise: Mapping[str, Any] | None) -> str:
    """Return label noise in words, e.g. "symmetric 50 %", "worse_label" or "clean"."""
    if not noise or noise.get("name") in (None, "none"):
        return "clean"
    rate = noise.get("rate")
    return f"{noise['name']} {100 * rate:.3g} %" if isinstance(rate, int | float) else str(noise["name"])


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


def differences(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each configuration, the settings in which it is not the same as all others."""
    flats = [flat_settings(config) for config in configs]
    names = {name: None for flat in flats for name in flat}
    missing = object()
    differing = [
        name for name in names if any(flat.get(name, missing) != flats[0].get(name, missing) for flat in flats)
    ]
    return [{name: flat.get(name, "(not set)") for name in differing} for flat in flats]


def group_runs(runs: Sequence[Run], notes: list[str] | None = None) -> list[Group]:
    """Group runs by their settings; those with one method and setting but other settings are marked as variants.

    Remarks on what differs, and on runs left out since they are there twice, are appended to `notes`.
    """
    notes = [] if notes is None else notes
    groups: dict[str, Group] = {}
    doubled = 0
    for run in runs:
        name, seed = str(run.results["run_name"]), int(run.results["seed"])
        group = groups.setdefault(name, Group(str(run.results["method"]), run.setting, name))
        earlier = group.runs.get(seed)
        doubled += earlier is not None
        if earlier is None or str(run.results.get("finished_at")) > str(earlier.results.get("finished_at")):
            group.runs[seed] = run
    if doubled:
        notes.append(f"{_count(doubled, 'run')} with the same settings and seed as another: only the newest counts")
    same: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups.values():
        same.setdefault((group.method, group.setting), []).append(group)
    for variants in same.values():
        if len(variants) > 1:
            _tell_apart(variants, notes)
    return sorted(groups.values(), key=lambda group: (group.setting, group.method, group.run_name))


def _tell_apart(variants: Sequence[Group], notes: list[str]) -> None:
    configs = [read_config(next(iter(group.runs.values())).folder) for group in variants]
    for group, different in zip(variants, differences(configs), strict=True):
        group.variant = group.run_name.rsplit("-", 1)[-1]
        shown = [f"{name}={_short(value)}" for name, value in list(different.items())[:6]]
        more = f" and {len(different) - 6} more" if len(different) > 6 else ""
        notes.append(f"{group.label} on {', '.join(group.setting)}: {' '.join(shown) or 'no config.yaml'}{more}")


def _read_results(folder: Path) -> dict[str, Any] | None:
    """Return the results of a finished run; None if the file is not whole or lacks what every run has."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    needed = ("run_name", "seed", "method", "dataset", "model", "selection", "final")
    known = isinstance(results, dict) and results.get("finished") is True and all(name in results for name in needed)
    if not known or not all(isinstance(results[name], dict) for name in ("selection", "final")):
        return None
    return results if isinstance(results["seed"], int) else None


def read_config(folder: Path) -> dict[str, Any]:
    """Return a run's resolved configuration; empty if there is none that can be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(folders: Sequence[Path], root: Path) -> str:
    shown = ", ".join(str(folder.relative_to(root)) for folder in folders[:3])
    return f"{shown}, ..." if len(folders) > 3 else shown
