"""Tables of group metrics: any rule, shares in per cent, oracles labelled, and what the numbers rest on."""

import csv
import io

import pytest

from robustlab.core.errors import ConfigError
from robustlab.report.collect import collect
from robustlab.report.group_columns import with_groups
from robustlab.report.plots import plot_curves
from robustlab.report.tables import matrix, render
from tests.report.grouped_results import GROUPS, measured
from tests.report.test_report import make_run, script


@pytest.fixture
def runs(tmp_path):
    for seed, worst in enumerate((0.5, 0.6, 0.7)):
        selection = {
            "last": measured(worst - 0.2),
            "avg": measured(worst - 0.1),
            "ig": measured(worst - 0.05, **{"test/inferred_worst": 0.4}),
            "hg": measured(worst),
            "best_test": measured(worst - 0.2),
        }
        make_run(tmp_path, "groupdro", seed=seed, selection=selection, dataset="waterbirds", groups=GROUPS)
    return tmp_path


@pytest.mark.parametrize(("rule", "mean"), [("last", "40.0"), ("avg", "50.0"), ("ig", "55.0"), ("hg", "60.0")])
def test_the_worst_group_under_every_rule(runs, rule, mean):
    assert matrix(collect(runs, metric="test/worst_group", rule=rule))[1] == [["groupdro", f"{mean} ± 10.0 (3)"]]


@pytest.mark.parametrize("metric", ["test/adjusted_avg", "test/balanced_group_avg", "test/group/landbird-land"])
def test_all_group_metrics_are_shown_in_per_cent(runs, metric):
    report = collect(runs, metric=metric, rule="avg")
    assert f"{metric} in %" in render(report, "markdown")
    assert matrix(report)[1][0][1].endswith(" ± 0.0 (3)")


def test_the_oracle_that_sees_group_labels_is_called_one_in_every_format(runs):
    report = collect(runs, metric="test/worst_group", rule="hg")
    assert "oracle: best worst group on the validation split" in render(report, "terminal")
    assert "oracle: best worst group on the validation split" in render(report, "markdown")
    for rule, oracle in (("hg", "yes"), ("best_test", "yes"), ("ig", "no"), ("avg", "no"), ("last", "no")):
        report = collect(runs, metric="test/worst_group", rule=rule)
        assert [row["oracle"] for row in csv.DictReader(io.StringIO(render(report, "csv")))] == [oracle]
        assert ("oracle" in render(report, "markdown")) == (oracle == "yes")


def test_a_worst_group_comes_with_its_definition_and_the_smallest_count(runs):
    (note,) = collect(runs, metric="test/worst_group").notes
    assert note == (
        "waterbirds: least accuracy over the 4 groups of class and attribute that the test split has, large or small; "
        "the smallest is waterbird-land with 642 samples"
    )


def test_an_average_stands_beside_the_worst_group_of_the_same_epoch(runs):
    report = with_groups(collect(runs, rule="ig"))
    header, rows = matrix(report)
    assert header == ["method", "test/accuracy", "adjusted average, %", "worst group, %"]
    assert rows[0][3] == "55.0 ± 10.0"
    assert any(note.startswith("waterbirds: least accuracy over the 4 groups") for note in report.notes)
    make_run(runs, "erm", seed=0, dataset="digits")
    assert matrix(with_groups(collect(runs, metric="test/worst_group", rule="ig")))[0] != header


def test_data_without_groups_have_no_column_of_them(tmp_path):
    make_run(tmp_path, "erm", seed=0)
    assert with_groups(collect(tmp_path)) == collect(tmp_path)


def test_an_adjusted_average_comes_with_its_weights(runs):
    (note,) = collect(runs, metric="test/adjusted_avg").notes
    assert note.endswith(
        "training samples: landbird-land 3498, landbird-water 184, waterbird-land 56, waterbird-water 1057"
    )
    assert collect(runs, metric="test/accuracy").notes == []


def test_no_worst_group_is_reported_where_there_is_no_attribute(tmp_path):
    make_run(tmp_path)
    with pytest.raises(ConfigError, match=r"no finished run .* has test/worst_group"):
        collect(tmp_path, metric="test/worst_group")


def test_the_script_takes_group_metrics_and_rules(runs, capsys):
    code, out, err = script(capsys, runs, "--metric", "test/worst_group", "--rule", "hg")
    assert (code, err) == (0, "")
    assert "60.0 ± 10.0 (3)" in out
    assert "oracle" in out


def test_curves_of_a_worst_group_are_drawn_in_per_cent(runs, tmp_path):
    for folder in runs.glob("*/seed*"):
        (folder / "metrics.jsonl").write_text('{"split": "epoch", "test/worst_group": 0.5}\n')
    plot_curves(runs, tmp_path / "curves.svg", metric="test/worst_group")
    assert "test/worst_group, %" in (tmp_path / "curves.svg").read_text().replace("<!-- ", "").replace(" -->", "")
