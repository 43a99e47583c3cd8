"""Memory that does not suffice: what was too large, what to lower, exit code 4, and the checkpoint is still there."""

import contextlib
import resource
from functools import partial

import pytest
import torch

from tests.end_to_end.harness import assert_same_run, run_folder, start, train
from tests.faults.injectors import in_order, on_call, replace
from tests.faults.subjects import arguments


def torch_on_cpu() -> None:
    torch.empty(10**15)


def python() -> None:
    bytearray(10**17)


def cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ...")


KINDS = {"torch on the CPU": torch_on_cpu, "python": python, "CUDA": cuda}
EVALUATION = "robustlab.engine.loop:evaluate_splits"


@pytest.mark.slow
@pytest.mark.fault("F21")
def test_out_of_memory_says_what_to_lower_and_keeps_the_checkpoint(tmp_path):
    log, whole, broken = tmp_path / "log.txt", tmp_path / "whole", tmp_path / "broken"
    assert train(arguments("erm", whole), log) == 0, log.read_text()
    for kind, act in KINDS.items():
        said = tmp_path / f"{kind}.txt"
        assert train(arguments("erm", broken), said, before=partial(on_call, EVALUATION, 1, act)) == 4, said.read_text()
        text = said.read_text()
        where = "GPU memory" if kind == "CUDA" else "memory"
        assert f"train: out of {where} with trainer.batch_size=20, trainer.eval_batch_size=200 (" in text
        assert "trainer.batch_size=10 with trainer.accumulate=2 keeps the effective batch size" in text
        assert "Traceback" not in text
    assert train(arguments("erm", broken), log) == 0, log.read_text()
    assert_same_run(run_folder(whole), run_folder(broken))


def unexplained(cfg: object, folder: object) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@pytest.mark.fault("F21", control=True)
def test_memory_control_without_the_explanation_there_is_a_traceback(tmp_path):
    log = tmp_path / "log.txt"
    bad = partial(replace, "robustlab.engine.run:explained", unexplained)
    before = partial(in_order, bad, partial(on_call, EVALUATION, 1, torch_on_cpu))
    process = start(arguments("erm", tmp_path / "out"), log, before=before)
    process.join(120)
    assert process.exitcode == 1
    assert "Traceback" in log.read_text()


def little_memory() -> None:
    """Leave 100 MB of address space."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, resource.RLIM_INFINITY))


@pytest.mark.slow
@pytest.mark.fault("F21")
def test_a_limit_of_the_address_space_is_reported_alike(tmp_path):
    log = tmp_path / "log.txt"
    large = ["model.widths=[512,512]", "trainer.batch_size=1400", "dataset.subset=1430", "trainer.epochs=1"]
    before = partial(on_call, "robustlab.engine.training:fit", 1, little_memory)
    assert train(arguments("erm", tmp_path / "out", *large), log, before=before) == 4, log.read_text()
    assert "out of memory with trainer.batch_size=1400" in log.read_text()
    assert "Traceback" not in log.read_text()
