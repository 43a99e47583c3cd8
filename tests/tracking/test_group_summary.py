"""Groups as a person sees them: the table before training, and the end of a run."""

import io
import json
from dataclasses import replace

from tests.data.grouped_source import Grouped, ThreeWay, biased
from tests.report.grouped_results import GROUPS, measured

from robustlab.core.console import make_console
from robustlab.data.dataset import Split
from robustlab.data.run_data import Data
from robustlab.tracking.group_summary import group_record, print_group_table, worst_group
from robustlab.tracking.summary import print_summary

RESULTS = {
    "finished": True, "method": "erm", "dataset": "waterbirds", "model": "resnet50", "seed": 0, "noise": {},
    "epochs": 3, "parameters": 12345, "seconds": 71.2, "noise_record": {}, "groups": GROUPS, "final": {},
    "selection": {"last": measured(0.6), "mean_last10": measured(0.5), "hg": measured(0.65), "avg": measured(0.55)},
}  # fmt: skip
BASELINE = {**RESULTS, "selection": {"last": measured(0.3)}, "method": "gdro"}


def summary(tmp_path, results, baseline=None) -> str:
    text = io.StringIO()
    print_summary(results, baseline, run_dir=tmp_path / "a" / "seed0", arguments=(), console=make_console(text))
    return text.getvalue()


def row(text: str, label: str) -> str:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label)]
    return line.strip().removeprefix(label).strip()


def test_the_record_of_groups_is_plain_and_counts_every_split():
    record = group_record(Data(Grouped(ThreeWay(), biased), seed=0))
    assert record is not None
    assert json.loads(json.dumps(record)) == record
    assert record["classes"] == ["landbird", "waterbird"]
    assert record["counts"]["train"] == {
        "landbird-land": 17, "landbird-water": 3, "waterbird-land": 2, "waterbird-water": 18,
    }  # fmt: skip
    assert [(split, sum(counts.values())) for split, counts in record["counts"].items()] == [
        ("train", 40), ("val", 20), ("test", 20),
    ]  # fmt: skip
    assert group_record(Data(ThreeWay(), seed=0)) is None


def test_a_split_without_attributes_is_left_out_of_the_record():
    class Partly(Grouped):
        def split(self, name: str) -> Split:
            split = super().split(name)
            return replace(split, attributes=None) if name == "val" else split

    record = group_record(Data(Partly(ThreeWay(), biased), seed=0))
    assert record is not None
    assert list(record["counts"]) == ["train", "test"]


def test_the_table_before_training_has_every_group_and_split():
    text = io.StringIO()
    print_group_table(GROUPS, make_console(text))
    lines = [line.split() for line in text.getvalue().splitlines() if line.strip()]
    assert ["class", "attribute", "train", "test"] in lines
    assert ["waterbird", "land", "56", "642"] in lines
    assert ["landbird", "land", "3,498", "2,255"] in lines
    assert ["all", "4,795", "5,794"] in lines


def test_the_summary_names_the_worst_group_its_size_and_its_interval(tmp_path):
    text = summary(tmp_path, RESULTS, BASELINE)
    assert row(text, "average over images") == "80.0 %"
    assert row(text, "adjusted average: groups weighted as in training") == "90.0 %"
    assert row(text, "balanced average: all groups weighted equally") == "75.0 %"
    assert row(text, "worst group: waterbird-land (642 images)") == "60.0 % [56.2, 63.7]"
    assert row(text, "gdro, worst group: waterbird-land (642 images)") == "30.0 % [26.6, 33.7]"


def test_the_summary_labels_the_oracle_among_the_rules(tmp_path):
    text = summary(tmp_path, RESULTS)
    assert row(text, "oracle: best worst group on the validation split, epoch 3") == "80.0 %, worst group 65.0 %"
    assert row(text, "best average on the validation split, epoch 3") == "80.0 %, worst group 55.0 %"
    assert row(text, "mean of the last 10 evaluations") == "80.0 %, worst group 50.0 %"


def test_the_worst_group_need_not_be_a_small_one():
    row = measured(0.6) | {"test/group/landbird-land": 0.2}
    assert worst_group(RESULTS, row, "test") == ("landbird-land", 0.2, 2255)
    assert worst_group({}, row, "test") == ("landbird-land", 0.2, None)


def test_no_worst_group_is_shown_where_there_is_no_attribute(tmp_path):
    plain = {name: value for name, value in RESULTS.items() if name != "groups"}
    last = {"epoch": 2, "test/accuracy": 0.8, "test/worst_class": 0.7, "mixed_same/accuracy": 0.75, "test/bg_gap": 0.1}
    text = summary(tmp_path, {**plain, "selection": {"last": last, "ig": last}, "derived": ["test/bg_gap"]})
    assert "worst group" not in text.replace("best worst inferred group", "")
    assert row(text, "mixed_same") == "75.0 %"
    assert row(text, "test/bg_gap") == "10.0 %"


def test_a_run_that_trained_no_classifier_has_a_summary(tmp_path):
    text = summary(tmp_path, {**RESULTS, "selection": {}, "final": {"train/epoch_loss": 1.0}})
    assert "accuracy" not in text
    assert "More seeds" in text
