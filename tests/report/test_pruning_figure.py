"""The picture of docs/methods/pruning.md: which lines of the results it shows, and where it puts them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "draw_pruning.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("draw_pruning", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(settings, seed, accuracy, flops_left, *, exit_code=0):
    words = " ".join(f"{key}={value}" for key, value in settings.items())
    return {
        "study": "made", "command": f"train seed={seed} {words}", "settings": settings, "seed": seed,
        "exit_code": exit_code, "metrics": {"last": {"test/accuracy": accuracy}},
        "final": {"pruning/flops_ratio_physical": flops_left},
    }  # fmt: skip


@pytest.fixture
def made(script, tmp_path, monkeypatch):
    rows = [
        *(line({"optimizer.lr": "0.1", "method.reg.peak": "0.03"}, seed, 0.9 + seed / 50, 0.5) for seed in (0, 1)),
        line({"optimizer.lr": "0.1", "method.reg.peak": "0.01"}, 0, 0.95, 0.7),
        line({"optimizer.lr": "0.1", "method.reg.peak": "0.2"}, 0, 0.1, 0.1, exit_code=5),
        line({"optimizer.lr": "0.03", "method.reg.peak": "0.03"}, 0, 0.5, 0.6),
        line({"optimizer.lr": "0.1", "method": "snap"}, 0, 0.4, 0.6),
    ]
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    return script


def test_a_line_has_the_points_with_its_settings_and_the_seeds_of_each_together(made):
    found = made.points("made", {"optimizer.lr": "0.1"})
    assert [[row["metrics"]["last"]["test/accuracy"] for row in rows] for rows in found] == [[0.9, 0.92], [0.95]]
    assert [len(rows) for rows in made.points("made", {"method": "snap"})] == [1]
    assert made.points("made", {"method": "slimming"}) == []


def test_points_are_means_in_order_with_bars_to_the_extremes(made):
    axis = Figure().subplots()
    drawn = made._draw(axis, made.points("made", {"optimizer.lr": "0.1"}), next(iter(made.MEASURES)), 0)
    data, _, (_, vertical) = drawn.lines
    assert data.get_xydata() == pytest.approx(np.array([[30, 95], [50, 91]]))
    assert vertical.get_segments()[0][:, 1] == pytest.approx(np.array([95, 95]))
    assert vertical.get_segments()[1][:, 1] == pytest.approx(np.array([90, 92]))


def test_every_line_of_the_committed_picture_has_points(script, tmp_path):
    missing = [
        (panel, label)
        for panel, lines in script.PANELS.items()
        for label, (study, settings) in lines.items()
        if not script.points(study, settings)
    ]
    assert missing == []
    script.main(["--out", str(tmp_path / "pruning.png")])
    with Image.open(tmp_path / "pruning.png") as picture:
        assert picture.width > 900
    assert "(../figures/pruning.png)" in (SCRIPT.parents[1] / "docs" / "methods" / "pruning.md").read_text()
