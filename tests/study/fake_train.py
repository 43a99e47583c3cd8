"""Stands for `train`: finds the run folder as it does, and does what `name=` asks for, without torch."""

import json
import signal
import sys
from pathlib import Path

from robustlab.config.compose import compose
from robustlab.config.run_names import run_name


def main() -> int:
    cfg = compose(sys.argv[1:])
    folder = Path(cfg.paths.run_dir)
    print(f"seed {cfg.seed}", flush=True)
    if cfg.name == "diverges":
        print("train: the loss is NaN at step 3\nlower optimizer.lr", file=sys.stderr)
        return 5
    if cfg.name == "wrong":
        print("train: no such file", file=sys.stderr)
        return 2
    if cfg.name == "full":
        return 4
    folder.mkdir(parents=True, exist_ok=True)
    if cfg.name == "long" and not (folder / "stopped").exists():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        (folder / "waits").touch()
        signal.sigwait([signal.SIGTERM])
        (folder / "stopped").touch()
        return 85
    if cfg.method.get("artifact"):
        assert Path(cfg.method.artifact).read_text() == f"concepts of seed {cfg.seed}"
    (folder / "concepts.pt").write_text(f"concepts of seed {cfg.seed}")
    code = {"git_sha": "0123456789abcdef", "dirty": False}
    start = {"code": code, "config": {"trainer": {"device": "auto"}}, "hardware": {"gpus": [], "torch_threads": 3}}
    (folder / "record.json").write_text(json.dumps({"starts": [start]}))
    accuracy = 0.9 + 0.01 * cfg.seed + cfg.optimizer.lr
    results = {
        "finished": True, "run_name": run_name(cfg), "seed": cfg.seed,
        "seconds": 1.5, "finished_at": "2026-01-01T00:00:00",
        "selection": {"last": {"epoch": 1, "test/accuracy": accuracy}},
        "final": {"diagnostics/beta": 1 / 3, "extrema/network1/class0_min": 0.1},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    return 0


sys.exit(main())
