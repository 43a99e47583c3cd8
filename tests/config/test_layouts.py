"""Tables of former names: what they can express, read in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.config import renames
from robustlab.config.check import problems
from robustlab.config.compose import compose
from robustlab.config.dotted import flat
from robustlab.config.layouts import (
    as_first_written,
    flat_in_todays_words,
    in_todays_words,
    node_in_todays_words,
    todays_key,
    todays_target,
)
from robustlab.config.renames import Layout, Node
from robustlab.config.run_names import identity, run_name

ONE_SHOT, SCORES = "lab.pruning.one_shot.OneShot", "lab.pruning.scores"
TABLE = Layout(
    modules={"lab.data": "lab.data.sources", "lab.steps": "lab.engine.steps"},
    targets={"lab.data.Flip": "lab.data.transforms.Flip", "lab.old_name": "lab.engine.new_name"},
    nodes=(
        Node(
            {"_target_": "lab.one_shot.Magnitude"},
            {"_target_": ONE_SHOT, "scorer._target_": f"{SCORES}.Magnitude"},
            keys={"norm": "scorer.norm", "spread": "scorer.spread"},
            neutral={"rounds": 1},
        ),
        Node(
            {"_target_": "lab.saliency.Saliency", "criterion": "snap"},
            {"_target_": ONE_SHOT, "scorer._target_": f"{SCORES}.Gates", "scorer.signed": True},
        ),
        Node(
            {"_target_": "lab.saliency.Saliency", "criterion": "crop"},
            {"_target_": ONE_SHOT, "scorer._target_": f"{SCORES}.Gates", "scorer.signed": False},
        ),
    ),
    places=(
        Node(
            {},
            {"diagnostics.memorised._target_": "lab.diagnostics.Memorised"},
            keys={"method.diagnostics": "diagnostics.memorised"},
        ),
    ),
    neutral={"update": None, "regularizer": [], "trainer.capture": False},
)
OLD = {
    "method": {
        "_target_": "lab.one_shot.Magnitude",
        "norm": "l1",
        "target": {"_target_": "lab.data.Share"},
        "diagnostics": {"every": 10, "parts": {"sizes": [1, 2]}},
    },
    "dataset": {"views": {"train": [{"_target_": "lab.data.Flip"}, {"_target_": "torch.nn.Identity"}]}},
    "trainer": {"epochs": 3},
}
TODAY = {
    "method": {
        "_target_": ONE_SHOT,
        "scorer": {"_target_": f"{SCORES}.Magnitude", "norm": "l1"},
        "target": {"_target_": "lab.data.sources.Share"},
        "rounds": 1,
    },
    "dataset": {"views": {"train": [{"_target_": "lab.data.transforms.Flip"}, {"_target_": "torch.nn.Identity"}]}},
    "diagnostics": {"memorised": {"_target_": "lab.diagnostics.Memorised", "every": 10, "parts": {"sizes": [1, 2]}}},
    "trainer": {"epochs": 3, "capture": False},
    "update": None,
    "regularizer": [],
}


def test_settings_are_translated_in_both_directions():
    assert in_todays_words(OLD, [TABLE]) == TODAY
    assert as_first_written(TODAY, [TABLE]) == OLD


FORMER_TARGETS = [*TABLE.targets, *(row.old["_target_"] for row in TABLE.nodes), "lab.data.Digits", "mine.Own"]
VALUES = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["l1", "snap", "crop"])
KEYS = st.sampled_from(["norm", "spread", "criterion", "part", "diagnostics", "more"])


def groups(inside):
    plain = st.dictionaries(KEYS, inside, max_size=4)
    return plain | st.lists(inside, max_size=2) | st.builds(with_target, plain, st.sampled_from(FORMER_TARGETS))


def with_target(group: dict, target: str) -> dict:
    return {**group, "_target_": target}


@given(st.dictionaries(st.sampled_from(["method", "dataset", "noise", "trainer"]), st.recursive(VALUES, groups)))
def test_whatever_was_stored_is_translated_and_back(stored):
    today = in_todays_words(stored, [TABLE])
    assert as_first_written(today, [TABLE]) == stored
    assert in_todays_words(today, [TABLE]) == today


def test_settings_that_are_in_these_words_already_stay():
    assert in_todays_words(TODAY, [TABLE]) == TODAY
    assert as_first_written(OLD, [TABLE]) == OLD
    assert in_todays_words({}, [TABLE]) == {}


def test_the_settings_handed_over_are_left_alone():
    before = repr((OLD, TODAY))
    in_todays_words(OLD, [TABLE])
    as_first_written(TODAY, [TABLE])["dataset"]["views"]["train"].clear()
    assert repr((OLD, TODAY)) == before


@pytest.mark.parametrize("signed", [True, False])
def test_old_classes_are_told_apart_by_parts_and_their_values(signed):
    today = {"_target_": ONE_SHOT, "scorer": {"_target_": f"{SCORES}.Gates", "signed": signed}, "batches": 2}
    old = {"_target_": "lab.saliency.Saliency", "criterion": "snap" if signed else "crop", "batches": 2}
    assert as_first_written({"method": today}, [TABLE]) == {"method": old}
    assert node_in_todays_words(old, [TABLE]) == today


def test_settings_of_the_users_own_are_not_taken_for_moved_ones():
    own = {**TODAY, "method": {"_target_": "mine.Method", "diagnostics": {"every": 3}}}
    first = as_first_written(own, [TABLE])
    assert first["method"] == own["method"]
    assert first["diagnostics"] == own["diagnostics"]
    assert in_todays_words(first, [TABLE]) == own


def test_what_is_new_has_no_former_name():
    new = {
        "method": {"_target_": ONE_SHOT, "scorer": {"_target_": "mine.Scorer"}, "rounds": 2},
        "diagnostics": {"drift": {"_target_": "mine.Drift"}},
        "update": {"_target_": "lab.updates.SAM"},
        "trainer": {"capture": True},
    }
    assert as_first_written(new, [TABLE]) == new


def test_a_value_that_says_something_stays_in_the_settings():
    changed = {**TODAY, "method": {**TODAY["method"], "rounds": 2}, "regularizer": ["decay"]}
    first = as_first_written(changed, [TABLE])
    assert first["method"]["rounds"] == 2
    assert first["regularizer"] == ["decay"]
    assert "update" not in first
    assert in_todays_words(first, [TABLE]) == changed


def test_false_and_zero_are_not_the_same_value():
    assert as_first_written({"a": 0}, [Layout(neutral={"a": False})]) == {"a": 0}


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("lab.data.Flip", "lab.data.transforms.Flip"),
        ("lab.data.Flip.fixed", "lab.data.transforms.Flip.fixed"),
        ("lab.data.Digits.small", "lab.data.sources.Digits.small"),
        ("lab.steps.step", "lab.engine.steps.step"),
        ("lab.old_name", "lab.engine.new_name"),
        ("lab.one_shot.Magnitude", f"{ONE_SHOT} with scorer._target_={SCORES}.Magnitude"),
        ("lab.saliency.Saliency", ONE_SHOT),
        ("lab.data.transforms.Flip", None),  # only modules themselves move, not whatever lies below their names
        ("lab.dataset.Flip", None),
        ("torch.optim.SGD", None),
        ("Flip", None),
    ],
)
def test_a_former_name_leads_to_todays(old, today):
    assert todays_target(old, [TABLE]) == today


def test_a_former_key_leads_to_todays():
    assert todays_key(ONE_SHOT, "method", "norm", [TABLE]) == "method.scorer.norm"
    assert todays_key("lab.Other", "method", "diagnostics", [TABLE]) == "diagnostics.memorised"
    assert todays_key(ONE_SHOT, "method", "rounds", [TABLE]) is None
    assert todays_key("lab.Other", "method", "norm", [TABLE]) is None


def test_one_rearrangement_after_another():
    second = Layout(
        modules={"lab.pruning.one_shot": "lab.cut", "lab.data.sources": "lab.sets"},
        nodes=(Node({"_target_": f"{SCORES}.Magnitude"}, {"_target_": f"{SCORES}.Norm"}, keys={"norm": "p"}),),
        neutral={"init": None},
    )
    today = in_todays_words(OLD, [TABLE, second])
    assert today["method"]["_target_"] == "lab.cut.OneShot"
    assert today["method"]["scorer"] == {"_target_": f"{SCORES}.Norm", "p": "l1"}
    assert today["method"]["target"] == {"_target_": "lab.sets.Share"}
    assert in_todays_words(TODAY, [TABLE, second]) == today
    assert as_first_written(today, [TABLE, second]) == OLD
    assert todays_target("lab.data.Digits", [TABLE, second]) == "lab.sets.Digits"
    assert todays_target("lab.data.sources.Digits", [TABLE, second]) == "lab.sets.Digits"


def test_flat_settings_are_translated_by_their_dotted_keys():
    odd = {"dataset.class_names": ["a.b"], "note": 1, "note.more": 2}  # a key with a dot of its own
    assert flat_in_todays_words({**flat(OLD), **odd}, [TABLE]) == {**flat(TODAY), **odd}


@pytest.fixture
def moved(monkeypatch):
    """Pretend that digits, ERM and its smoothing had other names before."""
    table = Layout(
        modules={"robustlab.former": "robustlab.data.sources.digits"},
        nodes=(
            Node(
                {"_target_": "robustlab.former_erm.Plain"},
                {"_target_": "robustlab.methods.erm.ERM"},
                keys={"smoothing": "label_smoothing"},
            ),
        ),
        places=(Node(keys={"method.watch": "trainer.watch"}),),
        neutral={"noise.model": None},
    )
    monkeypatch.setattr(renames, "recorded", lambda: (table,))


def test_the_name_of_a_run_is_taken_of_its_first_settings(moved):
    cfg = compose(["method=erm"])
    first = identity(cfg)
    assert first["method"]["_target_"] == "robustlab.former_erm.Plain"
    assert first["method"]["smoothing"] == 0
    assert "label_smoothing" not in first["method"]
    assert first["dataset"]["source"]["_target_"] == "robustlab.former.Digits"
    assert "model" not in first["noise"]
    assert run_name(compose(["method=erm", "method.label_smoothing=0.1"])) != run_name(cfg)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+method.smoothing=0.2", "method.smoothing: has moved; write method.label_smoothing=0.2"),
        ("+method.watch.every=3", "method.watch: has moved; write trainer.watch.every=3"),
        (
            "+method.watch={every: 3, size: 2}",
            "method.watch: has moved; write trainer.watch.every=3 trainer.watch.size=2",
        ),
    ],
)
def test_a_former_key_is_refused_with_todays(moved, override, message):
    assert problems(compose(["method=erm", override])) == [message]


def test_a_former_name_is_refused_with_todays(moved):
    assert problems(compose(["dataset.source._target_=robustlab.former.Digits"])) == [
        "dataset.source._target_: robustlab.former.Digits has moved; write robustlab.data.sources.digits.Digits"
    ]
