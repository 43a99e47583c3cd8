"""A folder of outputs with many runs of one submitted sweep: `python -m tests.launch.many_runs FOLDER 1000`."""

import json
import sys
from pathlib import Path

from robustlab.launch.submission import Submission, SubmittedPoint, log_path, outcome_path


def make_runs(outputs: Path, count: int, *, failed: int = 0) -> None:
    """Make `count` runs of 10 seeds for each setting, the last `failed` of them failed; each with its metrics."""
    sweep = outputs / "sweeps" / "made"
    (sweep / "points").mkdir(parents=True)
    points = []
    for number in range(count):
        name = f"erm-digits-{number // 10:08x}"
        folder = outputs / name / f"seed{number % 10}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 0\n")
        rows = [json.dumps({"step": step, "train/loss": 1.0 / step}) for step in range(1, 200)]
        (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
        points.append(SubmittedPoint(number, [f"seed={number % 10}"], str(folder), f"1_{number}"))
        is_failed = number >= count - failed
        outcome_path(sweep, number).write_text(json.dumps({"exit_code": 3 if is_failed else 0}))
        log_path(sweep, number).write_text("train epoch 1/2\ntrain: data damaged\n" if is_failed else "done\n")
        if not is_failed:
            results = {"finished": True, "run_name": name, "method": "erm", "dataset": "digits", "model": "small_cnn"}
            results |= {"seed": number % 10, "seconds": 36.0, "steps": 100, "epochs": 10, "selection": {}, "final": {}}
            (folder / "results.json").write_text(json.dumps(results))
    Submission(sweep, "2026-01-01T00:00:00+0000", str(outputs), [], [], points).write()


if __name__ == "__main__":
    make_runs(Path(sys.argv[1]).absolute(), int(sys.argv[2]), failed=int(sys.argv[2]) // 100)
