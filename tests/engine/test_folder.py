"""Damaged files of a run folder: one sentence that names the file, never an exception of Python's."""

import json

import pytest

from robustlab.core.errors import RunFolderError
from robustlab.tracking.finished_run import SHOWN, read_json, read_results


@pytest.mark.parametrize("content", ["{", "[]", "3", "{}", '{"finished": true}', "\xff"])
def test_damaged_results_are_named(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RunFolderError, match=r"results\.json .*; delete it to let the run finish again"):
        read_results(tmp_path)


def test_results_that_are_whole(tmp_path):
    assert read_results(tmp_path) is None
    results = {"finished": False}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert read_results(tmp_path) is None
    results = {"finished": True, **dict.fromkeys(SHOWN)}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert read_results(tmp_path) == results


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(RunFolderError, match="it has no starts"):
        read_json(tmp_path / "record.json", needed=("starts",), fix="delete it")
