"""Submit a sweep to SLURM: `robustlab submit method=erm,elr seed=0,1,2 hydra.launcher.gpus_per_node=1`.

The overrides are the same as for `train -m`. Points that are done, running or queued are skipped; the others become one
job array that runs a snapshot of the code. Does not wait: see `robustlab status`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from robustlab.commands.arguments import count
from robustlab.config.compose import session
from robustlab.core.errors import UserError
from robustlab.core.invocation import hint


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, print, and unless `--dry-run` submit; return the exit code: 2 for wrong settings, 4 without SLURM."""
    parser = argparse.ArgumentParser(
        prog=hint("submit"),
        description="Submit a sweep to SLURM as one job array that runs a snapshot of the code, and return. Points "
        "that are done, run or wait in the queue are left out.",
    )
    parser.add_argument("overrides", nargs="*", help="as for train -m; hydra.launcher.* for what a job asks for")
    parser.add_argument("--config-dir", help="a folder with options of your own, as for train")
    parser.add_argument("--dry-run", action="store_true", help="check every point and print what would be submitted")
    parser.add_argument("--at-most", type=count, metavar="N", help="jobs at a time (hydra.launcher.array_parallelism)")
    parser.add_argument("--pack", type=count, metavar="K", help="runs side by side in a job (hydra.launcher.pack)")
    args = parser.parse_intermixed_args(argv)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as train does: a `_target_` may name a module that lies here
    try:
        with session([args.config_dir] if args.config_dir else []) as hydra:
            from robustlab.launch.submit_command import submit_command

            chosen = {"array_parallelism": args.at_most, "pack": args.pack}
            limits = [f"hydra.launcher.{key}={value}" for key, value in chosen.items() if value]
            submit_command(hydra, [*args.overrides, *limits], dry_run=args.dry_run)
    except UserError as error:
        print(f"submit: {error}", file=sys.stderr)
        return error.exit_code
    return 0
