"""Download, verify and cache a data set before a run needs it, and print how many images each class has.

    python scripts/prepare_data.py cifar10 [paths.data_dir=/data dataset.source.download=true ...]

The first argument is a file of conf/dataset/; the others are overrides as for `train`. Exit codes as for `train`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

CONF = Path(__file__).resolve().parents[1] / "conf"


def main(arguments: list[str]) -> int:
    """Prepare the data set that `arguments` name; return the exit code."""
    names = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    if not arguments or arguments[0] not in names:
        print(f"usage: python scripts/prepare_data.py <data set> [overrides]\ndata sets: {', '.join(names)}")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2

    import torch
    from hydra.utils import instantiate

    from robustlab.config.compose import compose
    from robustlab.data.base import DataSource
    from robustlab.errors import UserError

    try:
        cfg = compose([f"dataset={arguments[0]}", *arguments[1:]])
        source: DataSource = instantiate(cfg.dataset.source)
        extra = ("imagenet",) if cfg.dataset.source.get("imagenet_root") else ()
        for name in ("train", "test", *extra):
            start = time.perf_counter()
            split = source.split(name)
            counts = torch.bincount(split.labels, minlength=source.task.num_classes).tolist()
            print(f"{name}: {len(split.labels)} images in {time.perf_counter() - start:.1f} s; per class {counts}")
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
