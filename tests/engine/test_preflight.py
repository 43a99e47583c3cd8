"""Looking ahead at the points of a sweep says nothing that the points say themselves."""

from __future__ import annotations

from robustlab.config.compose import compose
from robustlab.config.occupant import plain
from robustlab.core.console import say
from robustlab.engine.preflight import CPU, check_beside, preflight

POINT = ["dataset=digits", "noise=symmetric", "dataset.subset=60", "trainer.batch_size=20", "model.widths=[8]"]


def points(*overrides: str):
    return [(each, plain(compose([*POINT, each]))) for each in overrides]


def test_methods_that_announce_what_they_take_are_silent_ahead_of_a_sweep(capsys):
    preflight(points("method=crosssplit", "method=co_teaching", "method=erm"), read_data=True)
    assert capsys.readouterr().err == ""
    say("afterwards there is speech again")
    assert capsys.readouterr().err == "afterwards there is speech again\n"


def test_the_run_of_compare_is_silent_ahead_of_the_first(capsys):
    from robustlab.engine.build_data import build_data

    first, other = compose([*POINT, "method=erm"]), compose([*POINT, "method=co_teaching"])
    check_beside(other, first, build_data(first, CPU), CPU)
    assert capsys.readouterr().err == ""
