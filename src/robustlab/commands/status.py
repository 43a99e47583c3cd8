"""Show the state of runs from their folders and SLURM's queue: `robustlab status outputs/ [--resubmit | --cancel]`.

Exit code 0, or 1 if a run has failed. Also works without SLURM.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robustlab.core.console import make_console
from robustlab.core.errors import UserError
from robustlab.core.invocation import hint
from robustlab.launch.run_status import Status


def main(argv: Sequence[str] | None = None) -> int:
    """Print the standings and do what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=hint("status"),
        description="Show the state of runs, from their folders and from SLURM's queue if there is one.",
        epilog="Exit code 0, or 1 if a run has failed.",
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs"), help="default: %(default)s")
    parser.add_argument("--all", action="store_true", help="show every run, not 20 of each state")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--resubmit", action="store_true", help="resubmit failed runs with the current code")
    action.add_argument("--cancel", action="store_true", help="cancel the jobs of these runs; their progress is kept")
    args = parser.parse_args(argv)
    console = make_console()
    try:
        status = Status(args.folder)
        status.print(console, at_most=None if args.all else 20)
        if args.cancel:
            cancelled = status.cancel()
            console.print(
                f"cancelled {len(cancelled)} jobs: {', '.join(cancelled)}" if cancelled else "no jobs to cancel"
            )
        if args.resubmit and not status.resubmit():
            console.print("no failed runs to resubmit")
    except UserError as error:
        print(f"status: {error}", file=sys.stderr)
        return error.exit_code
    return int(status.has_failed and not args.resubmit)
