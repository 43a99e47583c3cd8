"""Send missing metrics of local runs to W&B: `robustlab sync outputs/`, on a machine that can reach the server.

For clusters whose compute nodes have no network, after an outage, or for runs with `tracker=local`. Each run becomes
one W&B run. Nothing is sent twice, so the command may be repeated, even while runs are in progress.

Exit codes: 0 everything was sent, 2 no runs or no key, 4 the server did not accept a run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robustlab.core.console import counted
from robustlab.core.errors import UserError
from robustlab.core.invocation import hint
from robustlab.tracking.wandb_sync import sync_all


def main(argv: Sequence[str] | None = None) -> int:
    """Sync the runs below a folder and say what was done; return the exit code."""
    parser = argparse.ArgumentParser(prog=hint("sync"), description="Send missing metrics of local runs to W&B.")
    parser.add_argument("folder", type=Path, help="the folder that holds the runs, e.g. outputs/")
    folder = parser.parse_args(argv).folder
    codes: list[int] = []
    try:
        for run, done, error in sync_all(folder):
            print(f"{run}: {done}", flush=True)
            codes.append(error.exit_code if error else 0)
    except UserError as error:
        print(f"sync: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{counted(len(codes), 'run')} checked" + (", not all were sent" if any(codes) else ""))
    return max(codes)
