"""A command reads and checks its data only once for consecutive runs."""

from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.harness import assert_same_run, train
from tests.faults.injectors import kill, on_call

SMALL = ["dataset.subset=120", "model.widths=[8,16]", "trainer.batch_size=40", "trainer.epochs=1"]
READING = "robustlab.engine.read_data:build_data"


def folders(outputs: Path) -> dict[str, Path]:
    """Return the run folders by method."""
    return {path.parent.parent.name.partition("-")[0]: path.parent for path in outputs.glob("*/seed*/results.json")}


@pytest.mark.parametrize(
    ("more", "reads"),
    [
        (["-m", "method=erm,elr"], 1),  # the check ahead reads, both points use it
        (["method=elr", "compare=erm"], 1),
        pytest.param(["-m", "method=erm,elr", "seed=0,1"], 4, marks=pytest.mark.slow),  # seeds 0, 1, 0, 1
    ],
)
def test_equal_data_are_read_once(more, reads, tmp_path):
    command = [*SMALL, *more, f"paths.output_dir={tmp_path / 'outputs'}"]
    log = tmp_path / "log.txt"
    assert train(command, log, before=partial(on_call, READING, reads, kill)) == -9, log.read_text()
    assert train(command, log, before=partial(on_call, READING, reads + 1, kill)) == 0, log.read_text()


@pytest.mark.slow
def test_a_run_on_data_that_another_has_read_is_the_run_that_reads_them_itself(tmp_path):
    log, shared, alone = tmp_path / "log.txt", tmp_path / "shared", tmp_path / "alone"
    assert train([*SMALL, "-m", "method=erm,elr", f"paths.output_dir={shared}"], log) == 0
    for method in ("erm", "elr"):
        assert train([*SMALL, f"method={method}", f"paths.output_dir={alone}"], log) == 0
        assert_same_run(folders(shared)[method], folders(alone)[method])


def test_the_run_to_compare_with_is_checked_once(tmp_path):
    command = [*SMALL, "method=elr", "compare=erm", f"paths.output_dir={tmp_path / 'outputs'}"]
    log, checking = tmp_path / "log.txt", "robustlab.engine.built:check_parts"  # of a run, when it begins
    assert train(command, log, before=partial(on_call, checking, 1, kill)) == -9, log.read_text()
    assert train(command, log, before=partial(on_call, checking, 2, kill)) == 0, log.read_text()
