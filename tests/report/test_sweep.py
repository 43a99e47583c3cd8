"""The table with which a sweep ends: short, of its own runs, and no danger to what the sweep came to."""

import pytest

from robustlab.report.sweep_table import ROWS, end_with_table
from tests.report.test_report import config, make_run


def sweep(root, variants, seeds=(0, 1)):
    folders = []
    for number in range(variants):
        for seed in seeds:
            settings = config(seed, temperature=number / 10)
            folders.append(make_run(root, digest=f"{number:08x}", seed=seed, accuracy=0.5 + seed / 10, config=settings))
    return folders


def test_it_has_a_line_for_each_variant(tmp_path, capsys):
    folders = sweep(tmp_path, 2)
    make_run(tmp_path, "erm", "99999999")  # of another sweep
    end_with_table(folders)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "test/accuracy in %, last epoch; mean ± sample standard deviation (number of seeds)"
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "crosssplit, method.temperature=0.0", "crosssplit, method.temperature=0.1",
    ]  # fmt: skip
    assert all(line.endswith("55.0 ± 7.1 (2)") for line in lines[2:])


def test_a_long_one_is_cut_and_says_where_the_whole_one_is(tmp_path, capsys):
    end_with_table(sweep(tmp_path, ROWS + 3, seeds=(0,)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"... and 3 more rows: robustlab report {tmp_path}"
    assert len(lines) == ROWS + 4


@pytest.mark.parametrize("finished", [0, 1])
def test_a_single_run_needs_no_table(tmp_path, capsys, finished):
    folders = [make_run(tmp_path, seed=seed, finished=seed < finished) for seed in range(3)]
    end_with_table([*folders, tmp_path / "never started"])
    assert capsys.readouterr() == ("", "")


def test_runs_without_accuracy_get_a_sentence(tmp_path, capsys):
    nothing = {"last": {"epoch": 1, "test/loss": 1.0}}
    end_with_table([make_run(tmp_path, seed=seed, selection=nothing) for seed in (0, 1)])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("no table of this sweep: no finished run in this sweep has test/accuracy")


def test_a_fault_of_the_table_is_told_and_no_more(tmp_path, capsys, monkeypatch):
    def broken(report):
        raise KeyError("planted")

    monkeypatch.setattr("robustlab.report.sweep_table.with_pruning", broken)
    end_with_table(sweep(tmp_path, 2))
    assert "warning: the table of this sweep could not be made (KeyError: 'planted')" in capsys.readouterr().err


def test_one_process_of_several_prints_it(tmp_path, capsys, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    end_with_table(sweep(tmp_path, 2))
    assert capsys.readouterr() == ("", "")
