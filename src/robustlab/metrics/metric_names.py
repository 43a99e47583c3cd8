"""Derive properties of metrics from their names."""

from __future__ import annotations

_SUMMARIES = frozenset({
    "adjusted_avg", "balanced_group_avg", "worst_group", "worst_group_low", "worst_group_high", "worst_class",
    "inferred_worst",
})  # fmt: skip


def is_group_accuracy(metric: str) -> bool:
    """Whether a metric is an accuracy of groups or classes, or a difference of such, and so shown in per cent.

    Beside the summaries these are `<split>/group/<class>-<attribute>`, `<split>/class/<class>` and `<split>/..._gap`.
    """
    *path, last = metric.split("/")
    return path[1:] in (["group"], ["class"]) or last.endswith("_gap") or last in _SUMMARIES
