"""A finished or stopped run's network in two small files: `robustlab export outputs/<run>/seed0 [--latency]`.

They hold weights (model.safetensors) and what is needed to build the network again (model.json). In Python,
`robustlab.export.exported_network.load_pruned(folder)` gives the network back, as small as the run left it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from robustlab.commands.arguments import count, threads
from robustlab.core.errors import UserError
from robustlab.core.invocation import hint

DTYPES = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; return the exit code: 2 if that cannot be done."""
    parser = argparse.ArgumentParser(
        prog=hint("export"), description="Export the network of a run as model.safetensors and model.json."
    )
    parser.add_argument("run", type=Path, help="a run folder, e.g. outputs/demp-digits-1a2b3c4d/seed0")
    parser.add_argument(
        "--weights", default="last", help="last, or a selection rule with weights, e.g. best_test (default %(default)s)"
    )
    parser.add_argument("--network", help="which network, where the method trains several, e.g. network1")
    parser.add_argument("--out", type=Path, help="the folder to write into (default: export, in the run folder)")
    parser.add_argument("--latency", action="store_true", help="measure prediction against the unpruned network, too")
    parser.add_argument("--device", default="cpu", help="where to measure: cpu, cuda (default %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="in what to measure (default %(default)s)")
    parser.add_argument(
        "--batch-sizes", type=count, nargs="+", default=[1, 256], metavar="N", help="what to measure (default 1 256)"
    )
    parser.add_argument("--threads", type=threads, help="CPU threads of the measurement (default: what torch chooses)")
    args = parser.parse_args(argv)
    from robustlab.core.devices import device_of
    from robustlab.export.run_export import export_run

    out = args.run / "export" if args.out is None else args.out
    try:
        device_of(args.device, "--device ")
        exported = export_run(args.run, out, weights=args.weights, learner=args.network)
    except UserError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    about = exported.description
    print(f"{out}: {about['parameters']:,} of {about['dense_parameters']:,} parameters", end="")
    print(f" (weight sparsity {about['weight_sparsity']:.1%}, neuron sparsity {about['neuron_sparsity']:.1%})", end="")
    print(f", {about['flops'] / about['dense_flops']:.1%} of the FLOPs")
    return _measure(args, exported) if args.latency else 0


def _measure(args: argparse.Namespace, exported) -> int:
    """Print and write the latency of the exported network beside that of the unpruned one."""
    import torch

    from robustlab.core.files import write_json
    from robustlab.export.latency import inference_speed_up

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    found = inference_speed_up(
        exported.dense,
        exported.network,
        exported.description["image_shape"],
        batch_sizes=args.batch_sizes,
        dtype=getattr(torch, args.dtype),
        device=args.device,
        channels_last=exported.description["channels_last"],
    )
    for one in found:
        milliseconds = f"{1e3 * one.pruned_seconds:.3g} ms against {1e3 * one.dense_seconds:.3g} ms"
        where = one.device if one.device != "cpu" else f"cpu, {torch.get_num_threads()} threads"
        print(f"batch {one.batch_size}, {one.dtype}, {where}: {one.ratio:.2f}x as fast ({milliseconds})")
    rows = [{**asdict(one), "ratio": one.ratio} for one in found]
    write_json(exported.folder / "latency.json", {"threads": torch.get_num_threads(), "latency": rows})
    return 0
