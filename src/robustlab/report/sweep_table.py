"""Print the table at the end of a sweep."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robustlab.core.console import make_console, say, warn
from robustlab.core.errors import ConfigError
from robustlab.core.invocation import hint
from robustlab.core.world import World
from robustlab.report.collect import read_runs, table_of
from robustlab.report.group_columns import with_groups
from robustlab.report.pruning_columns import with_pruning
from robustlab.report.tables import caption, matrix
from robustlab.tracking.summary import above

ROWS = 20
"""A longer table is cut: the whole one is a command away."""


def end_with_table(folders: Iterable[Path]) -> None:
    """Print mean ± std over seeds of a sweep's finished runs, if there are two; the first process of several does.

    Problems with the table are only reported: the sweep is over and its exit code is fixed.
    """
    if not World.from_environment().is_main:
        return
    try:
        _print(list(dict.fromkeys(folders)), make_console())
    except ConfigError as error:
        say(f"no table of this sweep: {error}")
    except Exception as error:
        warn(f"the table of this sweep could not be made ({type(error).__name__}: {error})")


def _print(folders: list[Path], console: Console) -> None:
    runs = read_runs(folders)
    if len(runs) < 2:
        return
    report = with_groups(with_pruning(table_of(runs, metric="test/accuracy", rule="last", places="this sweep")))
    header, rows = matrix(report)
    table = Table(title=escape(caption(report)), title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(escape(name), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows[:ROWS]:
        table.add_row(*map(escape, row))
    console.print()
    console.print(table)
    if len(rows) > ROWS:
        whole = hint("report", *sorted({str(above(folder)) for folder in folders}))
        console.print(f"... and {len(rows) - ROWS} more rows: {escape(whole)}", soft_wrap=True)
