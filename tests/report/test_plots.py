import json
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from robustlab.core.errors import ConfigError
from robustlab.core.figure_style import look
from robustlab.report.collect import find_runs
from robustlab.report.plots import curve, curves_figure, plot_curves
from tests.report.test_report import config, make_run


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


def measured(root, *, epochs, digest="11111111", seed=0, lr=0.1, **changes):
    """A finished run whose accuracy rises with the epochs."""
    folder = make_run(root, digest=digest, seed=seed, config={**config(seed), "optimizer": {"lr": lr}}, **changes)
    rows = [{"split": "epoch", "test/accuracy": 0.5 + lr + epoch / 100} for epoch in range(epochs)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_forty_lines_differ_in_colour_or_dashes_and_neighbours_in_both():
    looks = [look(number) for number in range(40)]
    assert len({(one["color"], one["linestyle"]) for one in looks}) == 40
    assert len({one["color"] for one in looks[:10]}) == 10
    for one, other in pairwise(looks):
        assert one["color"] != other["color"]
        assert one["linestyle"] != other["linestyle"]


def test_curves_are_told_apart_and_named_beside_the_axes(tmp_path):
    for number in range(7):
        measured(tmp_path, epochs=3, digest=f"{number:08x}", lr=number / 100)
    measured(tmp_path, epochs=3, digest="99999999", lr=0.01, dataset="mnist")
    figure = curves_figure(tmp_path)
    FigureCanvasAgg(figure).draw()
    first, second = figure.axes
    drawn = [(line.get_color(), line.get_linestyle()) for line in first.get_lines()]
    assert len({colour for colour, _ in drawn}) == 7
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f"CrossSplit, optimizer.lr={number / 100} (1 seed)" for number in range(7)]
    assert not any(axis.get_legend() for axis in figure.axes)
    frame = legend.get_window_extent()
    assert not any(frame.overlaps(axis.get_window_extent()) for axis in figure.axes)
    (line,) = second.get_lines()
    assert line.get_color() == drawn[1][0], "a method looks the same in every panel"


@pytest.mark.parametrize("epochs", [2, 3, 6, 60])
def test_epochs_have_whole_numbers(tmp_path, epochs):
    measured(tmp_path, epochs=epochs)
    figure = curves_figure(tmp_path)
    FigureCanvasAgg(figure).draw()
    ticks = figure.axes[0].get_xticks()
    assert len(ticks) >= 2
    assert all(tick == round(tick) for tick in ticks)


def test_a_run_of_one_epoch_is_a_point_with_the_range_of_its_seeds(tmp_path):
    measured(tmp_path, epochs=1, seed=0)
    measured(tmp_path, epochs=1, seed=1, digest="11111111")
    measured(tmp_path, epochs=1, digest="22222222", lr=0.2)
    figure = curves_figure(tmp_path)
    axis = figure.axes[0]
    points = [bar.lines[0] for bar in axis.containers]
    assert all(point.get_marker() not in (None, "None", "") for point in points)
    places = [float(point.get_xdata()[0]) for point in points]
    assert len(set(places)) == 2
    assert sum(places) / 2 == pytest.approx(1)
    assert list(axis.get_xticks()) == [1]
