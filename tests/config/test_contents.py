"""Digests of the files that settings name."""

import subprocess
import sys

import pytest

from robustlab.config.compose import compose
from robustlab.config.contents import changed_contents, contents
from robustlab.config.run_names import run_name

ONE = "7692c3ad3540bb80"  # printf one | sha256sum
TWO = "3fc4ccfe745870e2"


def test_each_file_that_settings_name_has_its_digest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_text("one")
    (tmp_path / "labels.npy").write_text("two")
    found = contents(compose(["method=erm", "model.weights=a.pth", "noise=file", "noise.model.file=labels.npy"]))
    assert found == {"model.weights": ONE, "noise.model.file": TWO}
    frozen = contents(compose(["method=cobalt", "method.artifact=a.pth", "features=frozen", "features.weights=a.pth"]))
    assert frozen == {"method.artifact": ONE, "features.weights": ONE}


@pytest.mark.parametrize("inside", ["model.safetensors", "checkpoints/last.pt"])
def test_of_a_folder_that_file_counts_which_is_read(inside, tmp_path):
    file = tmp_path / "run" / inside
    file.parent.mkdir(parents=True)
    file.write_text("one")
    assert contents(compose([f"model.weights={tmp_path / 'run'}"])) == {"model.weights": ONE}


def test_what_is_not_there_has_no_digest_and_refuses_nothing(tmp_path):
    cfg = compose(["noise=symmetric", f"model.weights={tmp_path / 'none.pth'}"])
    assert contents(cfg) == {}
    assert contents(compose([f"model.weights={tmp_path}"])) == {}
    assert contents(compose([])) == {}
    assert changed_contents({"model.weights": ONE}, {}) == changed_contents({}, {"model.weights": ONE}) == {}
    (words,) = changed_contents({"model.weights": ONE}, {"model.weights": TWO}).values()
    assert words.startswith(f"model.weights: the file had the content {ONE}")


def test_a_file_that_is_written_anew_has_another_digest_and_the_run_its_old_name(tmp_path):
    file = tmp_path / "a.pth"
    cfg = compose([f"model.weights={file}"])
    names = set()
    for text, digest in (("one", ONE), ("two", TWO)):
        file.write_text(text)
        assert contents(cfg) == {"model.weights": digest}
        names.add(run_name(cfg))
    assert len(names) == 1


def test_digests_need_no_torch():
    program = "import sys, robustlab.config.occupant; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
