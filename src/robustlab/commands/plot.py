"""Draw figures of finished runs: `robustlab plot outputs/ [--kind curves|sparsity|units] [--out picture.png]`.

- curves: a metric over epochs.
- sparsity: accuracy at the last epoch against the share of units (or weights, or FLOPs) removed, one line per method.
- units: the units left in each layer of one run over time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robustlab.core.errors import ConfigError, UserError
from robustlab.core.invocation import hint
from robustlab.report.collect import find_runs, group_runs
from robustlab.report.plots import plot_curves

KINDS = ("curves", "sparsity", "units")
SHARES = ("neuron", "weight", "flops")
WHAT = (
    "curves: a metric over epochs (the default); sparsity: accuracy at the last epoch against the share of units, "
    "weights or FLOPs removed; units: the units left in each layer over time, of one run"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture; return the exit code: 2 if there is nothing to draw."""
    parser = argparse.ArgumentParser(prog=hint("plot"), description="Draw figures of finished runs.")
    parser.add_argument("folders", type=Path, nargs="+", help="folders that hold runs, e.g. outputs/; units: one run")
    parser.add_argument("--kind", choices=KINDS, default="curves", help=WHAT)
    parser.add_argument("--metric", default="test/accuracy", help="a name in metrics.jsonl (default %(default)s)")
    parser.add_argument("--sparsity", choices=SHARES, default="neuron", help="of what (default neuron)")
    parser.add_argument("--out", type=Path, help="PNG, SVG or PDF (default: <kind>.png)")
    args = parser.parse_args(argv)
    out = Path(f"{args.kind}.png") if args.out is None else args.out
    try:
        _draw(args, out)
    except UserError as error:
        print(f"plot: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, ValueError) as error:  # an unwritable place, or a suffix that matplotlib does not know
        print(f"plot: cannot write {out}: {error}", file=sys.stderr)
        return 2
    print(out)
    return 0


def _draw(args: argparse.Namespace, out: Path) -> None:
    if args.kind == "curves":
        plot_curves(args.folders, out, metric=args.metric)
        return
    from robustlab.pruning.live_units_figure import EVENTS_FILE, live_units_figure, read_events
    from robustlab.report.sparsity_figure import accuracy_against_sparsity

    runs, _ = find_runs(args.folders)
    if args.kind == "sparsity":
        accuracy_against_sparsity(group_runs(runs), out, sparsity=args.sparsity, metric=args.metric)
        return
    folders = [run.folder for run in runs if (run.folder / EVENTS_FILE).exists()]
    folders = [folder for folder in folders if len(read_events(folder)["events"]) > 1] or folders[:1]
    if len(folders) > 1:
        listed = "\n  ".join(map(str, folders[:20]))
        places = ", ".join(map(str, args.folders))
        raise ConfigError(f"{places} holds {len(folders)} runs that prune; give the folder of one:\n  {listed}")
    content = read_events(folders[0] if folders else args.folders[0])
    live_units_figure(content["events"], out, total_updates=content.get("total_updates"))
