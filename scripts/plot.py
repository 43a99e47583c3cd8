"""Learning curves of finished runs: `python scripts/plot.py outputs/ [--metric test/accuracy] [--out curves.png]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robustlab.errors import UserError
from robustlab.report.plots import plot_curves


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the curves; return the exit code: 2 if there is nothing to draw."""
    parser = argparse.ArgumentParser(description="Draw a metric over epochs: mean and range over seeds.")
    parser.add_argument("folder", type=Path, help="the folder that holds the runs, e.g. outputs/")
    parser.add_argument("--metric", default="test/accuracy", help="a name in metrics.jsonl (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="PNG, SVG or PDF (default %(default)s)")
    args = parser.parse_args(argv)
    try:
        plot_curves(args.folder, args.out, metric=args.metric)
    except UserError as error:
        print(f"plot: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, ValueError) as error:  # an unwritable place, or a suffix that matplotlib does not know
        print(f"plot: cannot write {args.out}: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
