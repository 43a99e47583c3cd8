import json

import numpy as np
import pytest

from robustlab.errors import ConfigError
from robustlab.report.collect import find_runs
from robustlab.report.plots import curve, plot_curves
from tests.report.test_report import make_run


@pytest.mark.parametrize("content", [None, "no json\n", "[1]\n", "{}\n"])
def test_a_damaged_run_is_named(tmp_path, content):
    folder = make_run(tmp_path)
    if content is not None:
        (folder / "metrics.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=r"seed0/metrics\.jsonl cannot be read"):
        plot_curves(tmp_path, tmp_path / "curves.png")


def test_a_curve_counts_epochs_over_all_stages_and_is_drawn(tmp_path):
    folder = make_run(tmp_path / "outputs")
    rows = [
        {"stage": "warmup", "epoch": 0, "step": 2, "split": "train", "train/loss": 1.0},
        {"stage": "warmup", "epoch": 0, "step": 4, "split": "epoch", "test/accuracy": 0.5},
        {"stage": "ssl", "epoch": 0, "step": 8, "split": "epoch", "train/epoch_loss": 1.0},
        {"stage": "ssl", "epoch": 1, "step": 12, "split": "epoch", "test/accuracy": 0.75},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = find_runs(tmp_path)[0][0]
    assert np.array_equal(curve(run, "test/accuracy"), [[1, 0.5], [3, 0.75]])
    plot_curves(tmp_path / "outputs", tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl for names"):
        plot_curves(tmp_path / "outputs", tmp_path / "curves.png", metric="test/nothing")
