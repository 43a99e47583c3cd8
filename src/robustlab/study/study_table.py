"""A table of a study's results: the mean over seeds of each variant."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from robustlab.core.errors import ConfigError
from robustlab.report.statistics import estimate
from robustlab.report.tables import is_fraction
from robustlab.study.study_plan import key_of
from robustlab.tracking.jsonl import decode_number


def variants(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group rows that differ in nothing but the seed; the names are the overrides that not all rows share."""
    words = [[word for word in shlex.split(row["command"])[1:] if key_of(word) != "seed"] for row in rows]
    shared = set.intersection(*map(set, words)) if words else set()
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row, own in zip(rows, words, strict=True):
        groups.setdefault(" ".join(word for word in own if word not in shared) or "(one variant)", []).append(row)
    return groups


def value(row: Mapping[str, Any], metric: str, rule: str) -> float | None:
    """Return a metric under a selection rule; what only the end of a run knows counts as the rule "last"."""
    found = row.get("metrics", {}).get(rule, {}).get(metric)
    if found is None and rule == "last":
        found = row.get("final", {}).get(metric)
    found = decode_number(found)
    return float(found) if isinstance(found, int | float) else None


def study_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], rule: str) -> Table:
    """Return mean ± sample standard deviation (number of seeds) per variant. Raises ConfigError for unknown metrics."""
    known = {metric: [value(row, metric, rule) for row in rows] for metric in metrics}
    for metric, values in known.items():
        if all(one is None for one in values):
            there = sorted(
                {name for row in rows for name in (*row.get("metrics", {}).get(rule, {}), *row.get("final", {}))}
            )
            raise ConfigError(f"no line has {metric} under the rule {rule}; there are: {', '.join(there) or 'none'}")
    table = Table(title=f"rule: {rule}", title_justify="left")
    table.add_column("variant", overflow="fold")
    for heading in (*metrics, "failed"):
        table.add_column(heading, overflow="fold", justify="right")
    for name, group in variants(rows).items():
        cells = [_cell([value(row, metric, rule) for row in group], share=is_fraction(metric)) for metric in metrics]
        failed = [row["exit_code"] for row in group if row["exit_code"] != 0]
        table.add_row(escape(name), *cells, f"{len(failed)} of {len(group)}" if failed else "")
    return table


def _cell(values: Sequence[float | None], *, share: bool) -> str:
    known = [(100 * one if share else one) for one in values if one is not None]
    if not known:
        return ""
    found = estimate(known)
    digits = ".1f" if share else ".4g"
    spread = "" if found.std is None else f" ± {found.std:{digits}}"
    return f"{found.mean:{digits}}{spread} ({found.count})"
