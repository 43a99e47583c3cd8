"""Table of finished runs: `robustlab report outputs/ [--rule mean_last10] [--format markdown] [--out FILE]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robustlab.core.console import make_console
from robustlab.core.errors import UserError
from robustlab.core.invocation import hint
from robustlab.report.collect import collect
from robustlab.report.group_columns import with_groups
from robustlab.report.pruning_columns import with_pruning
from robustlab.report.tables import FORMATS, print_terminal, render
from robustlab.tracking.rule_names import RULE_NAMES

SUFFIXES = {".md": "markdown", ".csv": "csv"}


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the table; return the exit code: 2 if there is nothing to show."""
    parser = argparse.ArgumentParser(
        prog=hint("report"), description="Collect finished runs into a table: mean ± std over seeds."
    )
    parser.add_argument("folders", type=Path, nargs="+", help="folders that hold the runs, e.g. outputs/")
    parser.add_argument("--metric", default="test/accuracy", help="any metric of results.json (default %(default)s)")
    rules = "; ".join(f"{name}: {text}" for name, text in RULE_NAMES.items())
    parser.add_argument("--rule", default="last", choices=list(RULE_NAMES), help=f"which epoch counts ({rules})")
    parser.add_argument("--format", choices=FORMATS, help="default: what --out ends in, else terminal")
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    args = parser.parse_args(argv)
    layout = args.format or (SUFFIXES.get(args.out.suffix, "terminal") if args.out else "terminal")
    try:
        report = with_groups(with_pruning(collect(args.folders, metric=args.metric, rule=args.rule)))
        if args.out is not None:
            args.out.write_text(render(report, layout), encoding="utf-8")
        elif layout == "terminal":
            print_terminal(report, make_console())
        else:
            sys.stdout.write(render(report, layout))
    except UserError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"report: cannot write {args.out}: {error.strerror}", file=sys.stderr)
        return 4
    return 0
