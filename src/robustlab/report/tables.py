"""Writes a report as a table for the terminal, as Markdown, or as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robustlab.config.method_labels import reference_of
from robustlab.core.console import make_console
from robustlab.metrics.metric_names import is_group_accuracy
from robustlab.report.collect import Entry, Report
from robustlab.report.run_settings import varying
from robustlab.report.statistics import Estimate
from robustlab.tracking.rule_names import RULE_NAMES, is_oracle

FORMATS = ("terminal", "markdown", "csv")
CSV_COLUMNS = (
    "method", "variant", "dataset", "noise", "model", "metric", "rule", "oracle", "mean", "std", "n", "seeds",
    "run_name",
)  # fmt: skip


NAMED = ("method.", "dataset.", "noise.", "model.")
"""Groups whose options have columns of their own."""


def caption(report: Report) -> str:
    """Return what the numbers of a report are."""
    unit = " in %" if is_fraction(report.metric) else ""
    rule = RULE_NAMES.get(report.rule, report.rule)
    return f"{report.metric}{unit}, {rule}; mean ± sample standard deviation (number of seeds)"


def is_fraction(metric: str) -> bool:
    """Whether a metric is a share, shown in per cent: accuracies, sparsities and the memorisation diagnostics."""
    last = metric.rsplit("/", 1)[-1]
    return (
        last.endswith(("accuracy", "sparsity"))
        or last.startswith(("memorised", "corrected"))
        or is_group_accuracy(metric)
    )


def cell(entry: Entry, metric: str) -> str:
    """Return an estimate as text, e.g. "93.1 ± 0.4 (3)"."""
    return f"{_number(entry.estimate, share=is_fraction(metric))} ({entry.estimate.count})"


def _number(estimate: Estimate, *, share: bool) -> str:
    def write(value: float) -> str:
        if math.isnan(value):
            return "diverged"
        return f"{100 * value:.1f}" if share else f"{value:.4g}"

    spread = estimate.std
    plus_minus = "" if spread is None or math.isnan(spread) else f" ± {write(spread)}"
    return f"{write(estimate.mean)}{plus_minus}"


def matrix(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of a table of methods by settings, with the smaller set as columns.

    A report with further columns has one row per method and setting instead.
    """
    if report.columns:
        return _long(report)
    methods = list(dict.fromkeys(entry.group.label for entry in sorted(report.entries, key=_baseline_first)))
    settings = sorted({", ".join(entry.group.setting) for entry in report.entries}, key=_natural)
    cells = {(e.group.label, ", ".join(e.group.setting)): cell(e, report.metric) for e in report.entries}
    if len(settings) <= len(methods):
        return ["method", *settings], [[m, *(cells.get((m, s), "") for s in settings)] for m in methods]
    return ["setting", *methods], [[s, *(cells.get((m, s), "") for m in methods)] for s in settings]


def _long(report: Report) -> tuple[list[str], list[list[str]]]:
    one_setting = len({entry.group.setting for entry in report.entries}) == 1
    headings = [f"{column.heading}, %" if column.share else column.heading for column in report.columns]
    header = [*(["method"] if one_setting else ["setting", "method"]), report.metric, *headings]
    rows = []

    def place(entry: Entry) -> tuple[Any, ...]:
        """Order by setting and method, and the groups of a method by what the first of the further columns says."""
        first = entry.further.get(report.columns[0])
        order, label = _baseline_first(entry)
        setting = _natural(", ".join(entry.group.setting))
        return setting, order, entry.group.method, 0.0 if first is None else first.mean, label

    for entry in sorted(report.entries, key=place):
        further = [
            _number(entry.further[column], share=column.share) if column in entry.further else ""
            for column in report.columns
        ]
        setting = [] if one_setting else [", ".join(entry.group.setting)]
        rows.append([*setting, entry.group.label, cell(entry, report.metric), *further])
    return header, rows


def render(report: Report, layout: str) -> str:
    """Return the report as text in one of `FORMATS`; "terminal" without colours."""
    if layout == "terminal":
        text = io.StringIO()
        print_terminal(report, make_console(text))
        return text.getvalue()
    return {"markdown": to_markdown, "csv": to_csv}[layout](report)


def to_markdown(report: Report) -> str:
    """Return a Markdown table with its caption and notes."""
    header, rows = matrix(report)
    lines = [caption(report), "", _markdown_row(header), "|" + "|".join(["---", *["---:"] * (len(header) - 1)]) + "|"]
    lines += [_markdown_row(row) for row in rows]
    if report.notes:
        lines += ["", *(f"- {note}" for note in report.notes)]
    return "\n".join(lines) + "\n"


def to_csv(report: Report) -> str:
    """Return one line per method and setting, numbers in full (accuracies as fractions); `std` empty for one seed.

    The last columns are the settings in which the runs differ, under the names of the command line.
    """
    text = io.StringIO()
    keys = varying([entry.group.settings for entry in report.entries])
    keys = [key for key in keys if not (key.startswith(NAMED) and key.endswith((".name", "._target_")))]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CSV_COLUMNS, *(name for c in report.columns for name in (c.name, f"{c.name}_std")), *keys])
    for entry in report.entries:
        group, numbers = entry.group, entry.estimate
        mean, spread = _in_full(numbers)
        seeds = " ".join(map(str, entry.seeds))
        writer.writerow([
            group.method, group.variant, *group.setting, report.metric, report.rule,
            "yes" if is_oracle(report.rule) else "no",
            mean, spread, numbers.count, seeds, group.run_name,
            *(text for column in report.columns for text in _in_full(entry.further.get(column))),
            *(_setting(group.settings, key) for key in keys),
        ])  # fmt: skip
    return text.getvalue()


def _setting(settings: Mapping[str, Any], key: str) -> str:
    """Return a setting as the command line has it; empty where these settings do not have it."""
    if key not in settings:
        return ""
    value = settings[key]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _in_full(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "", ""
    return repr(estimate.mean), "" if estimate.std is None else repr(estimate.std)


def print_terminal(report: Report, console: Console) -> None:
    """Print the table and the notes."""
    header, rows = matrix(report)
    table = Table(title=escape(caption(report)), title_justify="left", show_lines=False)
    for index, name in enumerate(header):
        table.add_column(escape(name), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    for note in report.notes:
        console.print(f"[dim]{escape(note)}[/]", soft_wrap=True)


def _baseline_first(entry: Entry) -> tuple[float, str]:
    return reference_of(entry.group.method) or math.inf, entry.group.label


def _natural(text: str) -> list[tuple[float, str]]:
    """Sort key by which 5 % comes before 20 %."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(part), "") if index % 2 else (-1.0, part) for index, part in enumerate(parts)]


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
