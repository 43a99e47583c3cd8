"""Find the runs below a folder and group runs that differ only in the seed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from robustlab.config.method_labels import label_of
from robustlab.config.occupant import HISTORY
from robustlab.config.stored_config import read_config
from robustlab.core.console import counted
from robustlab.core.errors import ConfigError
from robustlab.report.group_notes import group_notes
from robustlab.report.run_settings import flat_settings, in_words, varying
from robustlab.report.statistics import Estimate, estimate
from robustlab.tracking.finished_run import usable_results
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
        """Data set, label noise and model, as text."""
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
    """Runs that differ only in the seed."""

    method: str
    setting: tuple[str, str, str]
    run_name: str
    runs: dict[int, Run] = field(default_factory=dict)
    variant: str = ""
    """Settings that distinguish it from other groups of its method, e.g. "optimizer.lr=0.1"; empty if none do."""

    @property
    def method_label(self) -> str:
        """The method as its authors write it."""
        return label_of(next(iter(self.runs.values())).results)

    @property
    def label(self) -> str:
        """The method, with the settings that distinguish it from other groups of the same method."""
        return f"{self.method}, {self.variant}" if self.variant else self.method

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of its runs, less the seed; see `flat_settings`. What happened on the way counts as well."""
        run = next(iter(self.runs.values()))
        return flat_settings(read_config(run.folder)) | {key: run.results[key] for key in HISTORY if key in run.results}


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
    """The entries of a table, and notes about what is missing or needs care."""

    metric: str
    rule: str
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: Sequence[Column] = ()


def find_runs(roots: Path | Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """Return the finished runs below some folders, and the folders of unfinished ones, both sorted by path.

    Raises ConfigError if one of `roots` is not a folder or contains no runs.
    """
    finished: dict[Path, Run] = {}
    unfinished: dict[Path, Path] = {}
    for root in [roots] if isinstance(roots, Path) else roots:
        runs, others = _find_runs(root)
        finished |= {run.folder.resolve(): run for run in runs}  # folders may lie in one another
        unfinished |= {folder.resolve(): folder for folder in others}
    return list(finished.values()), list(unfinished.values())


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Return the finished runs in the given run folders."""
    found = ((folder, usable_results(folder)) for folder in folders)
    return [Run(folder, results) for folder, results in found if results is not None]


def _find_runs(root: Path) -> tuple[list[Run], list[Path]]:
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; name the folder with the runs, e.g. outputs/")
    finished: list[Run] = []
    unfinished: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not SET_ASIDE.fullmatch(name))
        if "config.yaml" not in files and "results.json" not in files:
            continue
        folders.clear()  # there are no runs inside a run
        results = usable_results(Path(folder)) if "results.json" in files else None
        if results is None:
            unfinished.append(Path(folder))
        else:
            finished.append(Run(Path(folder), results))
    if not finished and not unfinished:
        raise ConfigError(f"there are no runs in {root}; name the folder with the runs, e.g. outputs/")
    return finished, unfinished


def collect(roots: Path | Sequence[Path], *, metric: str = "test/accuracy", rule: str = "last") -> Report:
    """Return the table of one metric under one selection rule over all finished runs below folders.

    Raises ConfigError if there is nothing to show: no run, none that is finished, none that has the metric.
    """
    runs, unfinished = find_runs(roots)
    places = str(roots) if isinstance(roots, Path) else ", ".join(map(str, roots))
    if not runs:
        raise ConfigError(f"none of the {len(unfinished)} runs in {places} is finished; run the same commands again")
    report = table_of(runs, metric=metric, rule=rule, places=places)
    if unfinished:
        report.notes.append(f"{counted(len(unfinished), 'unfinished run')}, not shown: {_listed(unfinished)}")
    return report


def table_of(runs: Sequence[Run], *, metric: str, rule: str, places: str) -> Report:
    """Return the table of finished runs; `places` is for messages. Raises ConfigError if no run has the metric."""
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
        raise ConfigError(f"no finished run in {places} has {metric} under the rule {rule}; {have}")
    report.notes += group_notes(metric, [run.results for entry in report.entries for run in entry.group.runs.values()])
    if without:
        report.notes.append(f"{counted(without, 'finished run')} without {metric} under the rule {rule}: not shown")
    return report


def noise_label(noise: Mapping[str, Any] | None) -> str:
    """Describe label noise, e.g. "symmetric 50 %", "worse_label" or "clean"."""
    if not noise or noise.get("name") in (None, "none"):
        return "clean"
    rate = noise.get("rate")
    return f"{noise['name']} {100 * rate:.3g} %" if isinstance(rate, int | float) else str(noise["name"])


def group_runs(runs: Sequence[Run], notes: list[str] | None = None) -> list[Group]:
    """Group runs by their settings; those with one method and setting but other settings are named as variants.

    Remarks on runs left out since they are there twice are appended to `notes`.
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
        notes.append(f"{counted(doubled, 'run')} with the same settings and seed as another: only the newest counts")
    by_method: dict[str, list[Group]] = {}
    for group in groups.values():
        by_method.setdefault(group.method, []).append(group)
    for variants in by_method.values():
        _tell_apart(variants)
    return sorted(groups.values(), key=lambda group: (group.setting, group.method, group.run_name))


def _tell_apart(groups: Sequence[Group]) -> None:
    """Name the groups of one method by the settings in which any two of them with one data set, noise and model differ.

    So a setting that is swept on one data set names the runs on another one, too, and they stand in one row. What
    happened to runs on the way always names them: their result is not that of a run in one go, beside others or not.
    """
    settings: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        settings.setdefault(group.setting, []).append(group)
    several = [same for same in settings.values() if len(same) > 1]
    differing = [key for same in several for key in varying([one.settings for one in same])]
    keys = dict.fromkeys([*HISTORY, *differing])
    for same in settings.values():
        for group in same:
            group.variant = in_words(group.settings, [key for key in keys if key in group.settings])
        names = [group.variant for group in same]  # equal ones differ further on, or have no config.yaml
        for group in same:
            if names.count(group.variant) > 1:
                digest = group.run_name.rsplit("-", 1)[-1]
                group.variant = f"{group.variant} [{digest}]".lstrip()


def _listed(folders: Sequence[Path]) -> str:
    shown = ", ".join(str(Path(*folder.parts[-2:])) for folder in folders[:3])
    return f"{shown}, ..." if len(folders) > 3 else shown
