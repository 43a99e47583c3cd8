"""Add columns about groups to a table of averages."""

from __future__ import annotations

from dataclasses import replace

from robustlab.report.collect import Column, Report
from robustlab.report.group_notes import group_notes
from robustlab.report.statistics import estimate

METRICS = {
    "test/adjusted_avg": Column("adjusted average", "adjusted_avg"),
    "test/worst_group": Column("worst group", "worst_group"),
}


def with_groups(report: Report) -> Report:
    """Return a report of the average with further columns about groups; the report itself where no run has any.

    Like everything else in the table, they are taken at the epoch that the report's rule selects.
    """
    if report.metric != "test/accuracy":
        return report
    entries, there = [], set()
    for entry in report.entries:
        further = dict(entry.further)
        for metric, column in METRICS.items():
            values = [run.value(metric, report.rule) for run in entry.group.runs.values()]
            known = [value for value in values if value is not None]
            if known:
                further[column] = estimate(known)
                there.add(column)
        entries.append(replace(entry, further=further))
    results = [run.results for entry in report.entries for run in entry.group.runs.values()]
    notes = [note for metric, column in METRICS.items() if column in there for note in group_notes(metric, results)]
    columns = tuple(column for column in METRICS.values() if column in there)
    return replace(report, entries=entries, notes=[*report.notes, *notes], columns=(*report.columns, *columns))
