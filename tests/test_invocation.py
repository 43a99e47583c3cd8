"""Suggested commands are those that work in the shell that the program was started from."""

import stat
import sys
from pathlib import Path

import pytest

from robustlab.core.invocation import command_words, extra_hint, hint, program_hint


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder to stand in, with an environment in .venv whose programs are not on the PATH; nothing is started yet."""
    for name in ("UV_RUN_RECURSION_DEPTH", "TORCHELASTIC_RUN_ID", "GROUP_WORLD_SIZE", "ROBUSTLAB_SWEEP"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("train", "robustlab", "wandb"):
        (folder / name).touch()
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def started(monkeypatch, *words: str, name: str | None = None) -> None:
    """Pretend that these words were typed. name: what Python puts in their place as the name of the program."""
    monkeypatch.setattr(sys, "orig_argv", list(words))
    monkeypatch.setattr(sys, "argv", [words[0] if name is None else name])


def both() -> tuple[str, str]:
    return hint("train", "-m", "seed=0,1"), hint("report", "outputs/")


def test_a_console_script_on_the_path(place, monkeypatch):
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    started(monkeypatch, "python", str(place / "train"), name=str(place / "train"))
    assert both() == ("train -m seed=0,1", "robustlab report outputs/")
    assert program_hint("wandb", "sync", "x") == "wandb sync x"
    started(monkeypatch, "python", str(place / "robustlab"), name=str(place / "robustlab"))
    assert both() == ("robustlab train -m seed=0,1", "robustlab report outputs/")


def test_a_console_script_that_is_not_on_the_path(place, monkeypatch, tmp_path):
    started(monkeypatch, "python", ".venv/bin/train", name=".venv/bin/train")
    assert both() == (".venv/bin/train -m seed=0,1", ".venv/bin/robustlab report outputs/")
    assert program_hint("wandb", "sync", "x") == ".venv/bin/wandb sync x"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    started(monkeypatch, "python", str(place / "train"), name=str(place / "train"))
    assert both()[0] == f"{place}/train -m seed=0,1"


def test_another_train_on_the_path_is_not_this_one(place, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "train").touch()
    (other / "train").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{other}:{place}")
    started(monkeypatch, "python", str(place / "train"), name=str(place / "train"))
    assert both() == (".venv/bin/train -m seed=0,1", "robustlab report outputs/")


def test_a_tool_whose_programs_are_links(place, monkeypatch, tmp_path):
    links = tmp_path / "local" / "bin"
    links.mkdir(parents=True)
    for name in ("train", "robustlab"):
        (links / name).symlink_to(place / name)
    monkeypatch.setenv("PATH", str(links))
    started(monkeypatch, "python", str(links / "train"), name=str(links / "train"))
    assert both() == ("train -m seed=0,1", "robustlab report outputs/")


def test_uv_run(place, monkeypatch):
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")  # for the child alone: the user's shell does not have it
    started(monkeypatch, "python", str(place / "train"), name=str(place / "train"))
    assert both() == ("uv run train -m seed=0,1", "uv run robustlab report outputs/")
    assert program_hint("wandb", "sync", "x") == "uv run wandb sync x"
    started(monkeypatch, str(place / "python"), "-m", "robustlab", "report", name="/x/robustlab/__main__.py")
    assert both()[1] == "uv run python -m robustlab report outputs/"


@pytest.mark.parametrize("python", ["python", ".venv/bin/python"])
def test_a_module(place, monkeypatch, python):
    started(monkeypatch, python, "-m", "robustlab.train", name="/x/robustlab/train.py")
    expected = (f"{python} -m robustlab.train -m seed=0,1", f"{python} -m robustlab report outputs/")
    assert both() == expected
    started(monkeypatch, python, "-P", "-m", "robustlab", "report", name="/x/robustlab/__main__.py")
    assert both() == expected


def test_a_script_of_a_checkout(place, monkeypatch, tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in ("report", "prepare_data"):
        (tmp_path / "scripts" / f"{name}.py").touch()
    started(monkeypatch, "python3", "scripts/report.py", name="scripts/report.py")
    assert both() == (".venv/bin/train -m seed=0,1", "python3 scripts/report.py outputs/")
    assert hint("prepare-data") == "python3 scripts/prepare_data.py"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    started(monkeypatch, str(place / "python"), "scripts/report.py", name="scripts/report.py")
    assert both() == ("uv run train -m seed=0,1", "uv run python scripts/report.py outputs/")


def test_torchrun(place, monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("GROUP_WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    started(monkeypatch, str(place / "python"), "-u", "-m", "robustlab.train", name="/x/robustlab/train.py")
    assert both() == (
        "torchrun --nproc-per-node=4 -m robustlab.train -m seed=0,1",
        ".venv/bin/robustlab report outputs/",
    )


def test_a_job_that_starts_a_module_by_itself(place, monkeypatch):
    monkeypatch.setenv("ROBUSTLAB_SWEEP", "2026-01-01")
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    started(monkeypatch, str(place / "python"), "-P", "-m", "robustlab.train", name="/x/robustlab/train.py")
    assert both() == ("train -m seed=0,1", "robustlab report outputs/")


def test_an_installation_without_console_scripts(place, monkeypatch):
    for name in ("train", "robustlab"):
        (place / name).unlink()
    started(monkeypatch, "python", "-c", name="-c")
    assert both() == (
        ".venv/bin/python -m robustlab.train -m seed=0,1",
        ".venv/bin/python -m robustlab report outputs/",
    )


def test_words_are_quoted_for_a_shell(place, monkeypatch):
    started(monkeypatch, "python", "-m", "robustlab", name="/x/robustlab/__main__.py")
    assert hint("report", "my outputs", "a='b'") == "python -m robustlab report 'my outputs' \"a='b'\""
    assert command_words("report") == ["python", "-m", "robustlab", "report"]


def test_an_extra_is_installed_as_the_package_was(monkeypatch, tmp_path):
    assert extra_hint("cluster") == "uv sync --extra cluster"  # these tests run in a checkout
    monkeypatch.setattr(
        "robustlab.core.invocation.__file__", str(tmp_path / "lib" / "robustlab" / "core" / "invocation.py")
    )
    assert extra_hint("cluster") == "pip install 'robustlab[cluster]'"
