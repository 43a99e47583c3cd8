"""`robustlab <verb>`: one screen of help, verbs that work from a wheel, and nothing heavy before it is needed."""

import os
import signal
import subprocess
import sys

import pytest

from robustlab.commands import VERBS
from robustlab.commands.main import main


def test_the_help_is_one_screen_that_names_every_verb(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(VERBS)


def test_without_a_verb_the_help_is_an_answer_to_a_mistake(capsys):
    assert main([]) == 2
    assert "usage: " in capsys.readouterr().out


def test_a_verb_that_does_not_exist(capsys):
    assert main(["reprot"]) == 2
    assert "no command reprot; did you mean 'report'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_names_the_command_and_imports_no_torch(verb):
    program = (
        "import sys\n"
        "from robustlab.commands.main import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        "heavy = [name for name in ('torch', 'matplotlib', 'sklearn') if name in sys.modules]\n"
        "sys.exit(code or (f'imported: {heavy}' if heavy else 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, verb, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"robustlab {verb}" in done.stdout or (verb == "train" and "train" in done.stdout)


def test_the_help_of_train_shows_commands_as_they_were_started(capsys, monkeypatch):
    assert main(["train", "--help"]) == 0
    assert "\n  train -m noise=" in capsys.readouterr().out
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert main(["train", "--help"]) == 0
    assert "\n  uv run train -m noise=" in capsys.readouterr().out


@pytest.mark.parametrize("module", [["robustlab.train"], ["robustlab", "train"]])
def test_a_reader_that_has_seen_enough_gets_no_traceback(module):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", *module, "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("verb", ["report", "status", "plot", "sync", "export"])
def test_a_verb_hands_on_its_exit_code(verb, capsys, tmp_path):
    assert main([verb, str(tmp_path / "nothing")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"{verb}: ")
    assert len(said.err.splitlines()) == 1
