"""The reproducibility record."""

import json
import subprocess

import pytest
import torch

from robustlab.engine.provenance import git_state, package_versions, reproducibility_record


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / ".gitignore").write_text("outputs/\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path, package, git("rev-parse", "HEAD")


def test_a_clean_checkout_is_its_commit(checkout):
    root, package, sha = checkout
    (root / "outputs").mkdir()
    (root / "outputs" / "ignored").write_text("x")
    assert git_state(package) == {"git_sha": sha, "dirty": False, "diff_sha256": None}


def test_every_change_of_the_code_changes_the_hash(checkout):
    root, package, sha = checkout
    seen = set()
    for path, text in (
        (package / "__init__.py", "a = 1\n"),
        (package / "__init__.py", "a = 2\n"),
        (root / "new file.py", "b = 1\n"),
        (root / "new file.py", "b = 2\n"),
    ):
        path.write_text(text)
        state = git_state(package)
        assert (state["git_sha"], state["dirty"]) == (sha, True)
        seen.add(state["diff_sha256"])
    assert len(seen) == 4
    assert git_state(package)["diff_sha256"] in seen, "equal code, equal hash"


def test_a_package_installed_inside_somebody_elses_checkout_is_not_part_of_it(checkout):
    root, _, _ = checkout
    installed = root / "outputs" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_state(installed) == {"git_sha": None, "dirty": None, "diff_sha256": None}


def test_no_git_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) == {"git_sha": None, "dirty": None, "diff_sha256": None}


def test_versions_are_those_that_are_imported():
    versions = package_versions()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "hydra-core" in versions


def test_the_record_is_plain_json(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JWT", "secret")
    record = reproducibility_record(config={"seed": 0, "method": {"name": "erm"}}, overrides=["method=erm"])
    assert json.loads(json.dumps(record)) == record
    assert record["config"]["method"]["name"] == "erm"
    assert record["overrides"] == ["method=erm"]
    assert record["slurm"]["SLURM_JOB_ID"] == "17"
    assert "secret" not in json.dumps(record)
    assert record["hardware"]["torch_threads"] == torch.get_num_threads()
    assert record["hardware"]["memory_gib"] > 0
    assert set(record) >= {"time", "command", "code", "packages", "python", "hardware"}
