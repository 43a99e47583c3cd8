"""The record that a run leaves of how it ended."""

import json

import pytest

from robustlab.core.errors import ConfigError, NumericalError, RunFolderError
from robustlab.engine.ending import errors_recorded, read_ending, record_ending
from robustlab.engine.lock import locked


def start(folder, error=None):
    """A start of a run that ends with an error, or well."""
    with errors_recorded(folder), locked(folder):
        (folder / "config.yaml").touch()
        if error is not None:
            raise error


def test_an_error_of_the_user_is_recorded_with_its_exit_code(tmp_path):
    with pytest.raises(NumericalError):
        start(tmp_path / "run", NumericalError("loss became nan in global step 7"))
    ending = read_ending(tmp_path / "run")
    assert ending is not None
    assert (ending.exit_code, ending.error, ending.message) == (5, "NumericalError", "loss became nan in global step 7")
    assert ending.traceback is None


def test_a_bug_is_recorded_with_its_traceback(tmp_path):
    with pytest.raises(TypeError):
        start(tmp_path / "run", TypeError("no float"))
    ending = read_ending(tmp_path / "run")
    assert ending is not None
    assert (ending.exit_code, ending.message) == (1, "TypeError: no float")
    assert "in start\n    raise error" in str(ending.traceback)


def test_a_start_takes_away_the_word_of_the_one_before(tmp_path):
    with pytest.raises(TypeError):
        start(tmp_path / "run", TypeError())
    with locked(tmp_path / "run"):
        assert read_ending(tmp_path / "run") is None  # were it killed now, there would be no word of it
    start(tmp_path / "run")
    assert read_ending(tmp_path / "run") is None


def test_a_command_that_cannot_work_leaves_the_word_of_the_start_before(tmp_path):
    with pytest.raises(NumericalError):
        start(tmp_path / "run", NumericalError("nan"))
    (tmp_path / "run" / ".lock").write_text("process 1 on elsewhere")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ConfigError):
        start(tmp_path / "run", ConfigError("other settings"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_command_that_cannot_work_leaves_no_new_folder(tmp_path):
    with pytest.raises(ConfigError), errors_recorded(tmp_path / "a" / "run"), locked(tmp_path / "a" / "run"):
        raise ConfigError("wrong")
    assert not list(tmp_path.iterdir())


def test_who_does_not_have_the_folder_writes_nothing(tmp_path):
    with locked(tmp_path / "run"):
        pass
    (tmp_path / "run" / ".lock").write_text("process 1 on elsewhere")
    record_ending(tmp_path / "run", 1, "TypeError", "x")
    assert read_ending(tmp_path / "run") is None


def test_a_word_that_cannot_be_written_does_not_hide_the_error(tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise RunFolderError("disk full")

    monkeypatch.setattr("robustlab.engine.ending.write_json", full)
    with pytest.raises(NumericalError):
        start(tmp_path / "run", NumericalError("nan"))
    assert "warning: disk full" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"exit_code": 1}), "{"])
def test_a_damaged_word_is_none(tmp_path, content):
    (tmp_path / "exit.json").write_text(content)
    assert read_ending(tmp_path) is None
