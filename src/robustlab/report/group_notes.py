"""Remarks below a table of group metrics: what the numbers mean and how many samples they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def group_notes(metric: str, results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the definition of a worst group, or the weights of an adjusted average, for each data set.

    results: content of the `results.json` of the runs in the table. Empty for other metrics.
    """
    split, _, name = metric.partition("/")
    tables = {}
    for one in results:
        counts = (one.get("groups") or {}).get("counts", {})
        wanted = counts.get("train" if name == "adjusted_avg" else split)
        if wanted:
            tables[str(one["dataset"])] = {group: count for group, count in wanted.items() if count}
    notes = []
    for dataset, table in sorted(tables.items()):
        if name == "adjusted_avg":
            weights = ", ".join(f"{group} {count}" for group, count in table.items())
            notes.append(f"{dataset}: groups weighted by their number of training samples: {weights}")
        elif name.startswith("worst_group"):
            least = min(table, key=lambda group: table[group])
            notes.append(
                f"{dataset}: least accuracy over the {len(table)} groups of class and attribute that the {split} split "
                f"has, large or small; the smallest is {least} with {table[least]} samples"
            )
    return notes
