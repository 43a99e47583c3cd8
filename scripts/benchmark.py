"""Speed, as ratios measured in one run: `python scripts/benchmark.py [data loop pruning ...] [--quick]`.

Each part prints a table: the measured ratio (or seconds), its least and largest over the rounds, and the goal.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

PARTS = {
    "data": "batched augmentation against PIL and torchvision",
    "crosssplit": "a CrossSplit epoch against a supervised one and against its own arithmetic",
    "loop": "time per step added by the loop, beside other trainers (needs `uv sync --group bench`)",
    "pruning": "a training step after units were removed, what a removal costs, DemP over dense training",
    "memory": "a CPU training step when freed memory stays in the process",
    "resume": "what a checkpoint costs, and a resumed start beside a cold one",
    "startup": "seconds until the command line answers",
}


def main() -> None:
    """Run the chosen parts and print one table each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of: {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part named {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    sys.path.insert(0, str(Path(__file__).parent))
    console = Console(width=None if sys.stdout.isatty() else 140)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load {load}")
    for part in arguments.parts or PARTS:
        table = Table(title=f"{part}: {PARTS[part]}", title_justify="left")
        for column in ("what", "measured", "least", "largest", "goal", "note"):
            table.add_column(column, justify="right" if column in ("measured", "least", "largest") else "left")
        for row in importlib.import_module(f"benchmarks.{part}").run(quick=arguments.quick):
            numbers = [f"{row[key]:,.3g} {row['unit']}" for key in ("ratio", "low", "high")]
            table.add_row(row["name"], *numbers, row["goal"], row["note"])
        console.print(table)


if __name__ == "__main__":
    main()
