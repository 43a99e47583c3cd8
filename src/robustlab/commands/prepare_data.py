"""Download, verify and cache a data set before a run needs it, and print how many images each class and group has.

    robustlab prepare-data cifar10 [paths.data_dir=/data dataset.source.download=true ...]
    robustlab prepare-data waterbirds --table waterbirds.csv [overrides]

The first argument is a data set's name, as in `train dataset=...`; the others are overrides as for `train`. Groups are
compared with those of the published data set where these are known; differences are warnings. --table writes a CSV file
with the columns index (in its split), file, split, y, a and g = y * attributes + a, which dataset=group_folder reads.
Exit codes as for `train`: 2 where files are missing, 3 where they are damaged or contradict one another.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.config.compose import compose
from robustlab.config.hydra_session import conf_dir
from robustlab.core.errors import UserError
from robustlab.core.invocation import hint

if TYPE_CHECKING:
    from robustlab.data.dataset import DataSource


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the data set that the arguments name; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    folder = conf_dir() / "dataset"
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    table = _take_table(arguments)
    if not arguments or arguments[0] not in names or table == "":
        print(
            f"usage: {hint('prepare-data')} <data set> [--table <file.csv>] [overrides]\ndata sets: {', '.join(names)}"
        )
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2

    from robustlab.config.build import build
    from robustlab.data.sources.group_tables import write_table

    try:
        cfg = compose([f"dataset={arguments[0]}", *arguments[1:]])
        source: DataSource = build(cfg.dataset.source)
        source.on_error = cfg.dataset.get("on_error", "raise")
        extra = ("imagenet",) if cfg.dataset.source.get("imagenet_root") else ()
        splits = (*source.splits, *extra)
        for name in splits:
            _prepare(source, name)
        if table is not None:
            rows = write_table(Path(table), source, splits)
            print(f"{table}: {rows} rows")
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _take_table(arguments: list[str]) -> str | None:
    """Take `--table PATH` or `--table=PATH` out of the arguments; None without it, empty without its path."""
    for place, argument in enumerate(arguments):
        if argument == "--table":
            path = arguments[place + 1] if place + 1 < len(arguments) else ""
            del arguments[place : place + 2]
            return path
        if argument.startswith("--table="):
            return arguments.pop(place).removeprefix("--table=")
    return None


def _prepare(source: DataSource, name: str) -> None:
    """Read one split and print its counts; warn if they differ from the published data set."""
    from robustlab.data.sources.group_tables import count, differences, show
    from robustlab.data.storage.damage import check_images
    from robustlab.data.storage.encoded_images import EncodedImages

    start = time.perf_counter()
    split = source.split(name)
    if isinstance(split.images, EncodedImages) and source.on_error != "skip":
        check_images(split.images, what=name)
    for file, reason in source.skipped.get(name, {}).items():
        print(f"warning: {name}: left out: {file}: {reason}", file=sys.stderr)
    line = f"{name}: {len(split.labels)} images in {time.perf_counter() - start:.1f} s"
    counts = count(split, source.task)
    if split.attributes is None:
        print(f"{line}; per class {[row[0] for row in counts]}")
        return
    print(f"{line}\n{show(counts, source.task)}")
    expected = getattr(source, "expected", {}).get(name)
    if expected is None:
        return
    found = differences(counts, expected, source.task)
    for difference in found:
        print(f"warning: {name}: {difference}", file=sys.stderr)
    if not found:
        print("  as in the published data set")
