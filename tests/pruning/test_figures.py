import json
import re

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from robustlab.core.errors import ConfigError
from robustlab.core.figure_style import look
from robustlab.pruning.live_units_figure import live_units_figure, read_events
from robustlab.report.collect import find_runs, group_runs
from robustlab.report.sparsity_figure import (
    SPARSITIES,
    _values,
    accuracy_against_sparsity,
    lines_of,
    sparsity_figure,
)
from tests.report.test_report import config, make_run, script_at


def texts(path):
    """All words in a picture, in the order they were drawn."""
    return re.findall(r"<text [^>]*>([^<]*)</text>", path.read_text())


@pytest.fixture(autouse=True)
def words_as_words():
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        yield


def events(layers):
    start = {f"stage{index}.conv1": 16 for index in range(layers)}
    return [{"t": 0, "live": start}, {"t": 50, "live": {name: 16 - n % 3 for n, name in enumerate(start)}}]


@pytest.mark.parametrize("layers", [1, 20, 50])
def test_every_layer_is_in_the_legend_with_its_units(tmp_path, layers):
    path = tmp_path / "figures" / "live_units.svg"
    live_units_figure(events(layers), path, total_updates=100)
    labels = [text for text in texts(path) if " to " in text]
    end = events(layers)[-1]["live"]
    assert labels[0] == f"all  {16 * layers} to {sum(end.values())}"
    assert labels[1:] == [f"{name}  16 to {count}" for name, count in reversed(end.items())]
    assert "100" in texts(path)


def test_a_run_that_removed_nothing_has_a_figure(tmp_path):
    live_units_figure(events(2)[:1], tmp_path / "live_units.png")
    assert (tmp_path / "live_units.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not finished, or its method removes no units"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"events": []}', "is damaged"),
        ('{"events": [{"t": 0}]}', "is damaged"),
        ('{"events": [{"t": 0, "live": {"a": 1}}, {"t": 1, "live": {"b": 1}}]}', "do not have the same layers"),
    ],
)
def test_events_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "pruning.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_events(tmp_path)


def pruned(root, method, digest, seed, sparsity, accuracy, *, peak=0.0, optimizer="sgd", **changes):
    settings = config(seed, name=method, reg={"peak": peak}) | {"optimizer": {"name": optimizer, "lr": 0.1}}
    final = {"pruning/neuron_sparsity": sparsity, "pruning/weight_sparsity": sparsity**2}
    final["pruning/flops_ratio_physical"] = 1 - sparsity
    return make_run(root, method, digest, seed, accuracy, config=settings, final=final, **changes)


@pytest.fixture
def sweep(tmp_path):
    root = tmp_path / "outputs"
    for number, (sparsity, accuracy) in enumerate([(0.2, 0.95), (0.5, 0.93), (0.8, 0.85)]):
        for seed in (0, 1):
            pruned(root, "demp", f"0000000{number}", seed, sparsity + 0.01 * seed, accuracy - 0.01 * seed, peak=number)
    pruned(root, "demp", "aaaaaaaa", 0, 0.3, 0.94, optimizer="adamw")
    make_run(root, "dense", "bbbbbbbb", 0, 0.96, config=config(0) | {"optimizer": {"name": "sgd", "lr": 0.1}})
    return root


def test_a_line_joins_what_differs_in_how_much_goes(sweep):
    lines = lines_of(group_runs(find_runs(sweep)[0]))
    assert [(line.method, line.suffix, len(line.groups)) for line in lines] == [
        ("demp", "optimizer sgd", 3),
        ("demp", "optimizer adamw", 1),
        ("dense", "", 1),
    ]


LABELS = {
    "neuron": "neuron sparsity, %",
    "weight": "weight sparsity, %",
    "flops": "FLOPs of a prediction saved, %",
}


@pytest.mark.parametrize("sparsity", LABELS)
def test_accuracy_against_sparsity(sweep, tmp_path, sparsity):
    accuracy_against_sparsity(group_runs(find_runs(sweep)[0]), tmp_path / "a.svg", sparsity=sparsity)
    found = texts(tmp_path / "a.svg")
    assert LABELS[sparsity] in found
    assert "test/accuracy, %" in found
    assert sum(text.endswith(("(optimizer sgd)", "(optimizer adamw)")) for text in found) == 2
    assert any(text.lower().startswith("dense") for text in found)


def test_methods_are_named_once_beside_the_axes_and_look_the_same_in_all(sweep):
    for number in range(12):
        pruned(sweep, "snap", f"cccccc{number:02d}", 0, 0.1, 0.9, optimizer=f"number{number}")
    for dataset, digest in (("digits", "dddddddd"), ("mnist", "eeeeeeee")):
        pruned(sweep, "magnitude", digest, 0, 0.2, 0.8, dataset=dataset)
    groups = group_runs(find_runs(sweep)[0])
    figure = sparsity_figure(groups)
    FigureCanvasAgg(figure).draw()
    first, second = figure.axes
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(set(names)) == 16
    assert not any(axis.get_legend() for axis in figure.axes)
    frame = legend.get_window_extent()
    assert not any(frame.overlaps(axis.get_window_extent()) for axis in figure.axes)
    assert [bars.lines[0].get_color() for bars in first.containers] == [look(number)["color"] for number in range(15)]
    (alone,) = second.containers
    number = next(index for index, name in enumerate(names) if "agnitude" in name)
    assert alone.lines[0].get_color() == look(number)["color"]


def test_seeds_that_remove_exactly_the_same_are_drawn(tmp_path):
    """Their mean can differ from them by rounding, in either direction."""
    for seed in range(3):
        pruned(tmp_path, "random_pruning", "00000000", seed, 0.019, 0.001)
        pruned(tmp_path, "magnitude", "00000001", seed, 0.001, 0.019)
    points = [
        bars.lines[0].get_xydata()[0] for bars in sparsity_figure(group_runs(find_runs(tmp_path)[0])).axes[0].containers
    ]
    assert sorted(map(tuple, points)) == [pytest.approx((0.1, 1.9)), pytest.approx((1.9, 0.1))]


def test_flops_are_drawn_as_the_share_that_is_saved(sweep):
    demp = next(line for line in lines_of(group_runs(find_runs(sweep)[0])) if line.suffix == "optimizer sgd")
    points = [_values(group, SPARSITIES["flops"][0], "test/accuracy") for group in demp.groups]
    assert points == [
        [(pytest.approx(x + 0.01 * seed), pytest.approx(y - 0.01 * seed)) for seed in (0, 1)]
        for x, y in [(0.2, 0.95), (0.5, 0.93), (0.8, 0.85)]
    ]


def test_nothing_to_draw_is_said(tmp_path):
    make_run(tmp_path, "erm")
    with pytest.raises(ConfigError, match=r"no finished run has pruning/neuron_sparsity .* method=demp"):
        accuracy_against_sparsity(group_runs(find_runs(tmp_path)[0]), tmp_path / "a.png")


def test_the_script(sweep, tmp_path, capsys):
    out = tmp_path / "picture.png"
    assert script_at("plot.py", capsys, sweep, "--kind", "sparsity", "--out", out)[:2] == (0, f"{out}\n")
    runs = sorted(sweep.glob("demp-*/seed0"))
    code, _, err = script_at("plot.py", capsys, runs[0], "--kind", "units", "--out", out)
    assert (code, "removes no units" in err) == (2, True)
    for run in runs[:2]:
        (run / "pruning.json").write_text(json.dumps({"events": events(3), "total_updates": 100}))
    code, _, err = script_at("plot.py", capsys, sweep, "--kind", "units", "--out", out)
    assert code == 2
    assert "holds 2 runs that prune; give the folder of one" in err
    out.unlink()
    assert script_at("plot.py", capsys, runs[0], "--kind", "units", "--out", out)[0] == 0
    assert out.read_bytes().startswith(b"\x89PNG")
