"""Kinds accept the values of their type and name what is wrong with others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.config.kinds import MISSING, Pattern, Range
from robustlab.config.static.typehints import from_type
from robustlab.config.wording import did_you_mean

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@dataclass
class Inner:
    rate: float
    steps: int = 3


@dataclass
class Outer:
    inner: Inner
    mode: Literal["a", "b", None] = "a"
    words: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [0, -3], [1.0, True, "1", None, [1]]),
        (float, [0.5, 2, -1], [True, "0.5", None]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "x"], [1, None, True]),
        (int | None, [None, 4], ["4", 4.0]),
        (Optional[float], [None, 4, 0.1], ["x"]),  # noqa: UP045
        (Literal["auto", True], ["auto", True], [1, "Auto", False, None]),
        (list[int], [[], [1, 2]], [[1.5], 1, "12", {"a": 1}]),
        (Sequence[float], [[1, 0.5]], [["x"], 3]),
        (tuple[int, float], [[1, 2.5], [1, 2]], [[1], [1, 2, 3], [1.5, 2]]),
        (tuple[int, ...], [[], [1, 2, 3]], [["x"]]),
        (dict[str, int], [{}, {"a": 1}], [{"a": "x"}, [1]]),
        (Mapping[str, list[int]], [{"a": [1]}], [{"a": 1}]),
        (Annotated[float, Range(above=0, high=1)], [1, 0.5], [0, 1.01, -1]),
        (Annotated[str, Pattern(r"cuda(:\d+)?", "a device")], ["cuda", "cuda:1"], ["cuda:", "xcuda", 1]),
        (Inner, [{"rate": 0.5}, {"rate": 1, "steps": 2}], [{}, {"rate": "x"}, {"rate": 1, "stepz": 1}, 3]),
        (Outer, [{"inner": {"rate": 1}, "mode": None}], [{"inner": 3}, {"inner": {"rate": 1}, "words": [1]}]),
    ],
)
def test_what_fits_and_what_does_not(annotation: Any, good: list[Any], bad: list[Any]):
    kind = from_type(annotation)
    assert [value for value in good if not kind.fits(value)] == []
    assert [value for value in bad if kind.fits(value)] == []


@given(PLAIN)
def test_python_and_the_kinds_agree_on_plain_types(value: Any):
    assert from_type(int).fits(value) == (type(value) is int)
    assert from_type(bool).fits(value) == (type(value) is bool)
    assert from_type(float | None).fits(value) == (type(value) in (int, float, type(None)))
    assert from_type(list[str]).fits(value) == (
        isinstance(value, list) and all(isinstance(item, str) for item in value)
    )


@given(PLAIN, st.sampled_from([int, float | None, list[int], Literal["a", 1], Inner, Outer, dict[str, bool]]))
def test_every_misfit_is_named_with_its_place(value: Any, annotation: Any):
    kind = from_type(annotation)
    messages = list(kind.problems(value, "group.key"))
    assert (not messages) == kind.fits(value)
    assert all(message.startswith("group.key") and ": " in message for message in messages)


@pytest.mark.parametrize("annotation", [int, bool | None, list[int], Inner, Literal["a"]])
def test_values_that_are_not_there_yet_and_objects_fit_everywhere(annotation: Any):
    assert from_type(annotation).fits(MISSING)
    assert from_type(annotation).fits({"_target_": "some.Class"})


def test_messages_name_the_innermost_place_and_the_nearest_name():
    kind = from_type(Outer)
    assert list(kind.problems({"inner": {"rate": 1, "step": 2}}, "method")) == [
        "method.inner.step: Inner has no key 'step'; did you mean 'steps'?"
    ]
    assert list(kind.problems({"inner": {"rate": 1}, "words": ["a", 2]}, "m")) == ["m.words[1]: expected a word, got 2"]
    assert list(from_type(Inner | None).problems({"rate": "0.5"}, "m")) == [
        "m.rate: expected a number, got '0.5' (text)"
    ]


@pytest.mark.parametrize(
    ("word", "expected"), [("temprature", "temperature"), ("lamda_u", "lambda_u"), ("xyzzy", None)]
)
def test_suggestions(word: str, expected: str | None):
    hint = did_you_mean(word, ["temperature", "lambda_u", "tau"])
    assert hint == (f"; did you mean '{expected}'?" if expected else "")
