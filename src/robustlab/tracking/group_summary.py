"""Report groups of samples: the table before training, and the worst group in the final summary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustlab.core.console import percent
from robustlab.metrics.intervals import wilson_interval
from robustlab.tracking.jsonl import decode_number

if TYPE_CHECKING:
    from robustlab.data.run_data import Data

AVERAGES = {
    "accuracy": "average over images",
    "adjusted_avg": "adjusted average: groups weighted as in training",
    "balanced_group_avg": "balanced average: all groups weighted equally",
}
"""Labels of the three averages; "adjusted accuracy" means the second one in some papers and the third in others."""


def group_record(data: Data) -> dict[str, Any] | None:
    """Return classes, attributes, and the number of samples of each group in each split; None without attributes.

    {"classes": [...], "attributes": [...], "counts": {"train": {"<class>-<attribute>": n, ...}, ...}}, plain types.
    """
    counts = {split: data.group_counts(split) for split in ("train", *data.evaluation_splits)}
    known = {split: number.tolist() for split, number in counts.items() if number is not None}
    if not known:
        return None
    return {
        "classes": list(data.task.label_names),
        "attributes": list(data.task.attribute_names),
        "counts": {split: dict(zip(data.task.group_names, numbers, strict=True)) for split, numbers in known.items()},
    }


def print_group_table(record: Mapping[str, Any], console: Console) -> None:
    """Print the result of `group_record`: one line per group, one column per split."""
    splits = list(record["counts"])
    table = Table(title="Samples of each class and attribute", title_justify="left", box=box.SIMPLE, show_footer=True)
    table.add_column("class", footer="all")
    table.add_column("attribute")
    for split in splits:
        table.add_column(split, justify="right", footer=f"{sum(record['counts'][split].values()):,}")
    names = list(record["counts"][splits[0]])
    pairs = [(y, a) for y in record["classes"] for a in record["attributes"]]
    for (y, a), name in zip(pairs, names, strict=True):
        numbers = [f"{record['counts'][split][name]:,}" for split in splits]
        table.add_row(Text(y), Text(a), *numbers)
    console.print(table)


def group_rows(results: Mapping[str, Any], row: Mapping[str, Any], split: str) -> list[tuple[str, str]]:
    """Return label and value of the averages and of the worst group that a row of metrics has for a split.

    results: content of a `results.json`, for the counts. Empty where no group was measured.
    """
    found = worst_group(results, row, split)
    if found is None:
        return []
    averages = [(text, decode_number(row.get(f"{split}/{name}"))) for name, text in AVERAGES.items()]
    shown = [(text, percent(value)) for text, value in averages if isinstance(value, int | float)]
    name, accuracy, count = found
    size, interval = "", ""
    if count:
        low, high = wilson_interval(min(max(accuracy, 0.0), 1.0), count)
        size, interval = f" ({count:,} images)", f" [{100 * low:.1f}, {100 * high:.1f}]"
    return [*shown, (f"worst group: {name}{size}", f"{percent(accuracy)}{interval}")]


def worst_group(results: Mapping[str, Any], row: Mapping[str, Any], split: str) -> tuple[str, float, int | None] | None:
    """Return name, accuracy and number of samples of the worst group in a row of metrics; None without groups."""
    pattern = re.compile(re.escape(f"{split}/group/") + "(.+)")
    measured = {match[1]: decode_number(value) for key, value in row.items() if (match := pattern.fullmatch(key))}
    if not measured:
        return None
    name = min(measured, key=lambda one: measured[one])
    counts = (results.get("groups") or {}).get("counts", {}).get(split, {})
    return name, float(measured[name]), counts.get(name)


def measured_splits(row: Mapping[str, Any]) -> Sequence[str]:
    """Return the splits, other than the validation split, whose accuracy is in a row of metrics; "test" first."""
    names = [match[1] for key in row if (match := re.fullmatch(r"([^/]+)/accuracy", key)) and match[1] != "val"]
    return sorted(names, key=lambda name: name != "test")
