"""A job runs the code and configuration of its submission, whatever is edited afterwards. Real jobs: tests/slurm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TAKE = """
import sys
from pathlib import Path
from robustlab.launch.snapshot import snapshot
snapshot(Path(sys.argv[1]), targets=[], config_dirs=[])
"""


@pytest.fixture
def tree(tmp_path):
    """A working tree of which a snapshot was taken to `tmp_path / "code"`, and which was edited afterwards."""
    tree = tmp_path / "tree"
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    taken = python(tree, "-c", TAKE, str(tmp_path / "code"))
    assert taken.returncode == 0, taken.stderr
    settings = tree / "conf" / "optimizer" / "sgd.yaml"
    text = settings.read_text()
    settings.write_text(text.replace("momentum:", "momentum: 0.125 #"))
    assert settings.read_text() != text
    (tree / "src" / "robustlab" / "__init__.py").write_text("print('# the edited code')\n")
    return tree


def python(code: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start Python as a job does, with the package below `code`."""
    environment = {**os.environ, "PYTHONPATH": str(code / "src")}
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, env=environment, cwd=code.parent, capture_output=True, text=True, check=False)


def shown(code: Path) -> str:
    """Return the settings that a run from `code` would have."""
    done = python(code, "-m", "robustlab.train", "method=erm", "optimizer=sgd", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.fault("F23")
def test_code_and_settings_edited_after_submission_do_not_reach_the_job(tree, tmp_path):
    text = shown(tmp_path / "code")
    assert "momentum:" in text
    assert "momentum: 0.125" not in text
    assert "the edited code" not in text


@pytest.mark.slow
@pytest.mark.fault("F23", control=True)
def test_snapshot_control_a_job_that_runs_from_the_tree_gets_the_edits(tree):
    text = shown(tree)
    assert "momentum: 0.125" in text
    assert "the edited code" in text
