"""Files that would run code when they are read: refused, and nothing in the program could be made to run them."""

import ast
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from robustlab.core.errors import UserError
from robustlab.data.noise import label_files as labels
from robustlab.data.noise.human_labels import read_label_file
from robustlab.data.storage.cache import read_array
from robustlab.engine.checkpoint import SCHEMA_VERSION, read_checked
from robustlab.models.weights import read_weights
from tests.end_to_end.harness import run_folder, train
from tests.faults.subjects import arguments

ROOT = Path(__file__).parents[2]


class Payload:
    def __reduce__(self):
        return (os.mkdir, (os.environ["SENTINEL"],))


@pytest.fixture
def sentinel(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SENTINEL", str(tmp_path / "sentinel"))
    return tmp_path / "sentinel"


def zipped(path: Path) -> None:
    torch.save({"schema": SCHEMA_VERSION, "payload": Payload()}, path)


def plain(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload()))


def array(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.array([Payload()], dtype=object), allow_pickle=True)


READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": read_checked,
    "weights": read_weights,
    "labels": labels.load,
    "human labels": read_label_file,
}


@pytest.mark.fault("F10")
@pytest.mark.parametrize("write", [zipped, plain, array])
@pytest.mark.parametrize("reader", READERS)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, sentinel, reader, write):
    path = tmp_path / "file.pt"
    write(path)
    with pytest.raises(UserError) as refusal:
        READERS[reader](path)
    assert refusal.value.exit_code in (2, 3, 4)
    assert "weights_only=False" not in str(refusal.value)
    assert not sentinel.exists()


@pytest.mark.fault("F10")
def test_a_malicious_cache_is_made_anew_and_not_run(tmp_path, sentinel):
    array(tmp_path / "cache.npy")
    assert read_array(tmp_path / "cache.npy", (1,), "object") is None
    assert not sentinel.exists()


@pytest.mark.fault("F10")
def test_a_malicious_checkpoint_names_what_was_refused_and_ends_with_4(tmp_path, sentinel):
    log, command = tmp_path / "log.txt", arguments("erm", tmp_path / "out", "trainer.max_steps=1")
    assert train(command, log) == 0
    run = run_folder(tmp_path / "out")
    (run / "results.json").unlink()
    for path in (run / "checkpoints").iterdir():
        zipped(path)
    assert train(command, log) == 4
    assert "posix.mkdir was refused: only tensors and plain types are loaded" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not sentinel.exists()


@pytest.mark.fault("F10", control=True)
def test_pickle_control_a_loader_without_restrictions_runs_it(tmp_path, sentinel):
    zipped(tmp_path / "file.pt")
    torch.load(tmp_path / "file.pt", weights_only=False)
    assert sentinel.exists()


OWN_COPIES = ("pickle.loads(pickle.dumps(cfg))", "pickle.loads(stored)")
"""Copies of a configuration in the memory of one process; no file is read."""


def dangers(source: str) -> Iterator[str]:
    """Yield what in a module could run foreign code: unrestricted loading, shells, evaluation of text."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.Unpickler", "yaml.unsafe_load"):
            yield called
        if called == "pickle.loads" and ast.unparse(node) not in OWN_COPIES:
            yield called
        if called == "yaml.load" and given.get("Loader") not in ("loader", "yaml.SafeLoader", "yaml.CSafeLoader"):
            yield called
        if called == "torch.load" and given.get("weights_only") != "True":
            yield called
        if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield called
        if given.get("shell", "False") != "False":
            yield f"{called} with a shell"


@pytest.mark.fault("F10", "F17")
def test_security_nothing_in_the_program_loads_without_restrictions_or_calls_a_shell():
    modules = [path for folder in ("src", "scripts") for path in (ROOT / folder).rglob("*.py")]
    assert len(modules) > 100
    found = {str(path.relative_to(ROOT)): list(dangers(path.read_text(encoding="utf-8"))) for path in modules}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.fault("F10", control=True)
@pytest.mark.parametrize(
    "source",
    [
        "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)", "np.load(p, allow_pickle=True)",
        "os.system('ls')", "subprocess.run('ls', shell=True)", "eval('1')", "exec(text)", "pickle.load(f)",
        "yaml.load(f)", "subprocess.Popen(c, shell=wanted)",
    ],
)  # fmt: skip
def test_security_control_each_danger_is_found(source):
    assert list(dangers(source))
    assert not list(dangers("network.eval(); subprocess.run(['ls']); torch.load(p, weights_only=True)"))
