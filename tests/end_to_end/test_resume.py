"""Killed at random moments and started again with the same command, a run ends as if nothing had happened."""

import json
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.harness import assert_same_run, interrupt, rows, run_folder, start, train
from tests.faults.injectors import on_call

SCHEDULE = ["trainer.epochs=4", "trainer.log_every=5", "trainer.checkpoint.every_steps=4", "dataset.subset=400"]
METHODS = {
    "erm": ["method=erm"],
    "elr": ["method=elr"],
    "co_teaching": ["method=co_teaching"],
    "crosssplit": ["method=crosssplit", "method.warmup.epochs=2"],
    "demp": ["method=demp", "method.surgery.every=5", "method.reg.peak=1.0", "method.reg.span=0.7", "optimizer.lr=0.1"],
}
STORAGE = {"resident": [], "streaming": ["dataset.storage=streaming", "dataset.workers=2"]}


def arguments(method: str, storage: str, outputs: Path) -> list[str]:
    return [*METHODS[method], *STORAGE[storage], *SCHEDULE, f"paths.output_dir={outputs}"]


def steps_done(outputs: Path) -> int:
    """The last step in the metrics file; 0 before there is one. The file may end in the middle of a row."""
    for path in outputs.glob("*/seed*/metrics.jsonl"):
        lines = path.read_bytes().splitlines()
        for line in reversed(lines):
            if line.endswith(b"}") and b'"step": ' in line:
                return int(line.split(b'"step": ')[1].split(b",")[0])
    return 0


def stage_ends(folder: Path) -> dict[str, dict[str, float]]:
    return json.loads((folder / "results.json").read_text())["stage_ends"]


def check_resume(tmp_path: Path, method: str, storage: str, number: signal.Signals, kills: int, seed: int) -> None:
    """Compare a run that is stopped `kills` times, each after a random number of steps, with one that is not."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    log = tmp_path / "log.txt"
    assert train(arguments(method, storage, whole), log) == 0, log.read_text()
    total = rows(run_folder(whole))[-1]["step"]
    chance = random.Random(seed)
    stops = sorted(chance.sample(range(1, total), kills))
    stopped = 0
    for stop in stops:
        process = start(arguments(method, storage, broken), log)
        interrupt(process, number, lambda stop=stop: steps_done(broken) >= stop)
        assert process.exitcode in ((-number, 85) if number != signal.SIGKILL else (-number,)) or process.exitcode == 0
        stopped += process.exitcode != 0
    assert stopped >= kills // 2, log.read_text()
    assert train(arguments(method, storage, broken), log) == 0, log.read_text()
    assert_same_run(run_folder(whole), run_folder(broken))


@pytest.mark.parametrize("method", ["erm", pytest.param("crosssplit", marks=pytest.mark.slow)])
def test_sigterm_in_mid_epoch_saves_and_the_same_command_goes_on(tmp_path, method):
    check_resume(tmp_path, method, "resident", signal.SIGTERM, kills=2, seed=0)
    ends, logged = stage_ends(run_folder(tmp_path / "broken")), rows(run_folder(tmp_path / "broken"))
    assert list(ends) == (["train"] if method == "erm" else ["warmup", "ssl"])
    for stage, measured in ends.items():
        last = [row for row in logged if row["stage"] == stage and row["split"] == "epoch"][-1]
        assert last["test/accuracy"] == measured["test/accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_stopped_at_random_steps_ends_with_the_same_bits(tmp_path, method, storage, number):
    check_resume(tmp_path, method, storage, number, kills=3, seed=10 * list(STORAGE).index(storage) + int(number))


def test_a_stopped_run_says_so_and_exits_with_85(tmp_path):
    outputs, log = tmp_path / "outputs", tmp_path / "log.txt"
    process = start(["method=erm", "trainer.epochs=1000", "trainer.log_every=1", f"paths.output_dir={outputs}"], log)
    interrupt(process, signal.SIGUSR2, lambda: steps_done(outputs) >= 3)
    assert process.exitcode == 85
    assert "stopped by SIGUSR2" in log.read_text()
    assert not (run_folder(outputs) / "results.json").exists()


def test_a_finished_run_is_not_done_again_and_resume_false_keeps_the_old_one(tmp_path):
    outputs, log = tmp_path / "outputs", tmp_path / "log.txt"
    command = ["method=erm", "trainer.epochs=1", f"paths.output_dir={outputs}"]
    assert train(command, log) == 0
    folder = run_folder(outputs)
    before = (folder / "results.json").stat().st_mtime_ns
    log.unlink()
    assert train(command, log) == 0
    assert "already finished" in log.read_text()
    assert (folder / "results.json").stat().st_mtime_ns == before
    assert train([*command, "resume=false"], log) == 0
    assert (folder.with_name("seed0.old1") / "results.json").stat().st_mtime_ns == before
    assert_same_run(folder, folder.with_name("seed0.old1"))


def test_a_second_process_is_refused_and_the_first_unharmed(tmp_path):
    outputs, log = tmp_path / "outputs", tmp_path / "log.txt"
    command = ["method=erm", "trainer.epochs=1000", "trainer.log_every=1", f"paths.output_dir={outputs}"]
    first = start(command, log)
    while first.is_alive() and steps_done(outputs) < 2:
        pass
    second_log = tmp_path / "second.txt"
    assert train(command, second_log) == 4
    assert f"process {first.pid}" in second_log.read_text()
    assert "Traceback" not in second_log.read_text()
    assert train([*command, "resume=false"], second_log) == 4  # nor is its folder moved away from under it
    assert [path.name for path in run_folder(outputs).parent.iterdir()] == ["seed0"]
    interrupt(first, signal.SIGTERM, lambda: True)
    assert first.exitcode == 85


def test_a_diverging_run_stops_with_the_step_and_keeps_its_last_good_checkpoint(tmp_path):
    outputs, log = tmp_path / "outputs", tmp_path / "log.txt"
    command = ["method=erm", "optimizer.lr=1e30", "trainer.epochs=3", f"paths.output_dir={outputs}"]
    assert train(command, log) == 5
    text = log.read_text()
    assert "became nan in global step" in text or "became inf in global step" in text
    assert "Traceback" not in text
    assert not (run_folder(outputs) / "results.json").exists()


def test_a_job_that_slurm_starts_again_goes_on_with_what_resume_false_began(tmp_path):
    """A requeued job has the same command line: it must neither start over each time nor find the old run finished."""
    outputs, log = tmp_path / "outputs", tmp_path / "log.txt"
    command = ["method=erm", *SCHEDULE, f"paths.output_dir={outputs}"]
    assert train(command, log) == 0
    first, again = {"SLURM_JOB_ID": "77"}, {"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "1"}
    other = {"SLURM_JOB_ID": "78", "SLURM_RESTART_COUNT": "1"}
    stop = partial(on_call, "robustlab.engine.learner:Learner.step", 9, partial(signal.raise_signal, signal.SIGTERM))
    assert train([*command, "resume=false"], log, first, stop) == 85
    assert "the same command without resume=false resumes from there" in log.read_text()
    log.unlink()
    assert train([*command, "resume=false"], log, again) == 0
    assert "resuming in" in log.read_text()
    assert sorted(path.name for path in outputs.glob("*/seed0*")) == ["seed0", "seed0.old1"]
    assert_same_run(*sorted(outputs.glob("*/seed0*")))
    assert train([*command, "resume=false"], log, other) == 0  # another job's first start on this folder
    assert sorted(path.name for path in outputs.glob("*/seed0*")) == ["seed0", "seed0.old1", "seed0.old2"]
