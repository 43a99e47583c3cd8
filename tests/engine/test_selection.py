"""The epoch that each selection rule keeps, and the rules that a data set allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.engine.selection import RULES, Selection, rules_for
from robustlab.tracking.rule_names import RULE_NAMES, is_oracle
from tests.data.grouped_source import Grouped, ThreeWay, biased
from tests.data.toy_source import Toy

GROUP_RULES = ["avg", "ig", "hg"]


def select(rows: list[dict[str, float]], rules: list[str] = GROUP_RULES) -> Selection:
    selection = Selection(rules)
    for epoch, row in enumerate(rows):
        selection.update(epoch, row, lambda e=epoch: {"epoch": e})
    return selection


def chosen(selection: Selection) -> dict[str, float]:
    return {rule: row["epoch"] for rule, row in selection.results().items()}


def row(avg: float, inferred: float | None, worst: float | None, worst_class: float | None = None) -> dict[str, float]:
    values = {
        "val/accuracy": avg,
        "val/inferred_worst": inferred,
        "val/worst_group": worst,
        "val/worst_class": worst_class,
    }
    return {name: value for name, value in values.items() if value is not None}


def test_each_rule_finds_its_planted_epoch():
    rows = [row(0.5, 0.1, 0.3), row(0.9, 0.2, 0.1), row(0.8, 0.7, 0.2), row(0.7, 0.3, 0.6), row(0.6, 0.4, 0.4)]
    selection = select(rows)
    assert chosen(selection) == {"avg": 1, "ig": 2, "hg": 3}
    assert selection.snapshots == {"avg": {"epoch": 1}, "ig": {"epoch": 2}, "hg": {"epoch": 3}}
    again = Selection(GROUP_RULES)
    again.load_state_dict(selection.state_dict())
    again.update(5, row(0.65, 0.7, 0.6), dict)  # ties with less on average
    assert chosen(again) == chosen(selection)


def test_equal_worst_groups_are_told_apart_by_the_average():
    rows = [row(0.6, 0.5, 0.5), row(0.8, 0.5, 0.5), row(0.8, 0.5, 0.5), row(0.7, 0.5, 0.5)]
    assert chosen(select(rows)) == {"avg": 1, "ig": 1, "hg": 1}


def test_without_concepts_the_worst_class_stands_in_for_inferred_groups():
    rows = [row(0.9, None, None, 0.2), row(0.8, None, None, 0.7), row(0.7, None, None, 0.3)]
    assert chosen(select(rows)) == {"avg": 0, "ig": 1}
    rows = [row(0.9, 0.8, None, 0.2), row(0.8, 0.1, None, 0.7)]
    assert chosen(select(rows, ["ig"])) == {"ig": 0}


def test_a_missing_number_is_never_the_best():
    nan = float("nan")
    rows = [row(0.5, nan, nan), row(0.6, 0.1, 0.1), row(nan, nan, nan)]
    assert chosen(select(rows)) == {"avg": 1, "ig": 1, "hg": 1}


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 0.75])] * 3), min_size=1, max_size=12))
def test_what_is_kept_is_the_first_of_the_best(values):
    selection = select([row(*one) for one in values])
    expected = {
        "avg": max(range(len(values)), key=lambda e: (values[e][0], -e)),
        "ig": max(range(len(values)), key=lambda e: (values[e][1], values[e][0], -e)),
        "hg": max(range(len(values)), key=lambda e: (values[e][2], values[e][0], -e)),
    }
    assert chosen(selection) == expected
    assert {rule: weights["epoch"] for rule, weights in selection.snapshots.items()} == expected


def test_weights_are_copied_once_for_all_rules_of_an_epoch():
    copies = []
    Selection(GROUP_RULES).update(0, row(0.5, 0.5, 0.5), lambda: {"copy": copies.append(1)})
    assert len(copies) == 1


def test_a_metric_that_comes_later_leaves_the_mean_of_the_others():
    selection = select([row(0.5, None, None), row(0.7, 0.3, None)], ["mean_last10"])
    assert selection.results()["mean_last10"] == {"val/accuracy": pytest.approx(0.6)}


def test_rules_follow_from_the_validation_split():
    grouped = Data(Grouped(ThreeWay(), biased), seed=0)
    assert rules_for(grouped, ["last", "best_test"]) == ["last", "best_test", "avg", "ig", "hg"]
    assert rules_for(grouped, ["hg", "last"]) == ["hg", "last", "avg", "ig"]
    assert rules_for(Data(ThreeWay(), seed=0), ["last"]) == ["last", "avg", "ig"]
    assert rules_for(Data(Toy(), seed=0), ["last"]) == ["last"]
    assert rules_for(Data(Toy(), seed=0, val_fraction=0.2), ["last"]) == ["last", "best_noisy_val"]
    share = Data(Grouped(Toy(40, 2), biased), seed=0, val_fraction=0.5)
    assert rules_for(share, ["last"]) == ["last", "best_noisy_val", "avg", "ig", "hg"]


def test_rules_that_have_nothing_to_go_by_are_refused():
    with pytest.raises(ConfigError, match=r"avg, ig needs a validation split.*dataset\.val_fraction"):
        rules_for(Data(Toy(), seed=0), ["avg", "ig"])
    with pytest.raises(ConfigError, match="hg needs group labels"):
        rules_for(Data(ThreeWay(), seed=0), ["hg"])
    assert rules_for(Data(Toy(), seed=0, val_fraction=0.2), ["ig"]) == ["ig", "best_noisy_val"]


def test_rules_that_use_group_labels_or_the_test_set_are_called_oracles():
    assert set(RULE_NAMES) == set(RULES)
    assert {rule for rule in RULE_NAMES if is_oracle(rule)} == {"hg", "best_test"}
    assert {rule for rule, text in RULES.items() if text.startswith("oracle")} == {"hg", "best_test"}
