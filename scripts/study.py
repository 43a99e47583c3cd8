"""Run a study, one point after the other: `python scripts/study.py docs/studies/<name>.yaml [--output FOLDER]`.

Each finished point appends a line to docs/results/<name>.jsonl; points that stand there are skipped, and after a stop
the same command goes on. Exit codes: 0 done, 2 the study is wrong, 85 stopped, else that of a point without a result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # the code of this checkout, whatever is installed

from robustlab.core.console import make_console
from robustlab.core.errors import UserError
from robustlab.study.results_file import read_lines
from robustlab.study.runner import Runner
from robustlab.study.study_plan import read_study
from robustlab.study.study_table import study_table
from robustlab.tracking.rule_names import RULE_NAMES

WIDE = 240
"""Columns of a table that is written to a file: variants are long, and must not be cut."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the study, e.g. docs/studies/lambda_u.yaml")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="where runs live (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="the file of lines (default: ../results/<name>.jsonl)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="of this machine: paths.data_dir, ..."
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only points whose command has this text in it")
    parser.add_argument("--dirty", action="store_true", help="run although src/ or conf/ has uncommitted changes")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="print the points that have no line yet")
    action.add_argument("--table", action="store_true", help="print mean ± std over seeds instead")
    parser.add_argument("--metric", nargs="+", default=["test/accuracy"], help="of the table (default: test/accuracy)")
    parser.add_argument("--rule", default="last", choices=list(RULE_NAMES), help="of the table (default: %(default)s)")
    args = parser.parse_args(argv)
    results = args.results or args.study.parent.parent / "results" / f"{args.study.stem}.jsonl"
    try:
        study = read_study(args.study)
        runner = Runner(study, results, args.output.expanduser().absolute(), args.set, args.dirty)
        if args.table:
            rows = [row for row in read_lines(results) if args.only in row["command"]]
            if not rows:
                print(f"study: {results} has no such lines yet", file=sys.stderr)
                return 2
            console = make_console(width=WIDE)  # a terminal has its own width
            console.print(study_table(rows, args.metric, args.rule))
            return 0
        if args.list:
            for point in runner.pending(args.only):
                print(point.command)
            return 0
        return runner.run(args.only)
    except UserError as error:
        print(f"study: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
