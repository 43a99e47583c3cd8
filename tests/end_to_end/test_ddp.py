"""Several processes with a share of each batch: started by torchrun or srun, stopped, killed, and going on."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.end_to_end.harness import SMALL, assert_same_run, interrupt, rows, run_folder, start, train

pytestmark = pytest.mark.slow

COMMAND = ["trainer.log_every=1", "dataset.subset=250", "trainer.batch_size=61"]
"""250 = 4 * 61 + 6: two processes share no batch evenly."""
ERM = ["method=erm", "model.norm=group", *COMMAND, "trainer.epochs=40", "trainer.evaluate_every=20"]
ERM += ["trainer.checkpoint.every_steps=7"]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def start_two(arguments, folder, *, by_slurm=False):
    """Start both ranks as torchrun or srun does, through the variables that it sets."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    shared |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"} if by_slurm else {"WORLD_SIZE": "2"}
    own = ("SLURM_PROCID", "SLURM_LOCALID") if by_slurm else ("RANK", "LOCAL_RANK")
    return [
        start(arguments, folder / f"rank{rank}.txt", {**shared, **{name: str(rank) for name in own}})
        for rank in range(2)
    ]


def train_two(arguments, folder, **options):
    processes = start_two(arguments, folder, **options)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0], (folder / "rank0.txt").read_text()


def begun(outputs):
    """Return a question: has a run below `outputs` done some steps?"""
    return lambda: any(path.stat().st_size > 2000 for path in outputs.glob("*/seed*/metrics.jsonl"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of ERM in two processes, as torchrun starts them."""
    folder = tmp_path_factory.mktemp("whole")
    train_two([*ERM, f"paths.output_dir={folder}"], folder)
    return run_folder(folder)


def test_two_ranks_have_the_losses_of_one_process(tmp_path, whole):
    arguments = [*ERM, "trainer.max_steps=18", f"paths.output_dir={tmp_path}"]
    assert train(arguments, tmp_path / "log.txt") == 0
    one = [row for row in rows(run_folder(tmp_path)) if row["split"] == "train"]
    two = [row for row in rows(whole) if row["split"] == "train"]
    assert len(one) == 18
    for first, second in zip(one, two[:18], strict=True):
        assert first.keys() == second.keys()
        for name in ("train/loss", "train/accuracy", "train/lr/network", "step", "epoch"):
            assert second[name] == pytest.approx(first[name], abs=1e-4), (name, first["step"])


def test_tasks_of_srun_do_what_processes_of_torchrun_do(tmp_path, whole):
    train_two([*ERM, f"paths.output_dir={tmp_path}"], tmp_path, by_slurm=True)
    assert_same_run(whole, run_folder(tmp_path))


METHODS = {
    "crosssplit": ["method.warmup.epochs=1"],
    "demp": ["method.surgery.every=4", "method.reg.peak=1.0", "optimizer.lr=0.1", "model.widths=[8,16]"],
    "cobalt": ["method.discover.epochs=2", "method.slots.hidden=16", "model.widths=[8,16]"],
}


@pytest.mark.parametrize("method", METHODS)
def test_both_ranks_stop_and_go_on_together(tmp_path, method):
    """BatchNorm included: in mid-epoch each process has running statistics of its own."""
    arguments = [f"method={method}", *METHODS[method], *COMMAND, "trainer.epochs=4"]
    train_two([*arguments, f"paths.output_dir={tmp_path / 'whole'}"], tmp_path)
    broken = [*arguments, f"paths.output_dir={tmp_path / 'broken'}"]
    first, second = start_two(broken, tmp_path)
    interrupt(second, signal.SIGTERM, begun(tmp_path / "broken"))  # only one gets the signal: both must save and stop
    first.join(60)
    assert [first.exitcode, second.exitcode] == [85, 85], (tmp_path / "rank0.txt").read_text()
    train_two(broken, tmp_path)
    assert_same_run(run_folder(tmp_path / "whole"), run_folder(tmp_path / "broken"))


def test_a_rank_that_dies_takes_the_other_down_and_nothing_is_lost(tmp_path, whole):
    arguments = [*ERM, f"paths.output_dir={tmp_path}"]
    first, second = start_two(arguments, tmp_path)
    interrupt(second, signal.SIGKILL, begun(tmp_path))
    first.join(60)
    assert first.exitcode == 4, (tmp_path / "rank0.txt").read_text()
    said = (tmp_path / "rank0.txt").read_text()
    assert "train: process 0 of 2 lost another process of this run" in said
    assert "Traceback" not in said
    train_two(arguments, tmp_path)
    assert_same_run(whole, run_folder(tmp_path))


def test_processes_that_were_started_with_other_settings_are_refused(tmp_path):
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    processes = [
        start(
            [*ERM, "noise=symmetric", f"seed={rank}", f"paths.output_dir={tmp_path / 'out'}"],
            tmp_path / f"rank{rank}.txt",
            {**shared, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [4, 4]
    assert "process 1 differs from process 0 in settings, training labels" in (tmp_path / "rank0.txt").read_text()


def test_torchrun_stops_all_on_a_signal_and_the_exit_code_is_in_the_file(tmp_path, whole):
    arguments = [*ERM, f"paths.output_dir={tmp_path}"]
    code, log = tmp_path / "code", tmp_path / "torchrun.txt"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    environment = {**os.environ, "ROBUSTLAB_EXIT_CODE_FILE": str(code), "OMP_NUM_THREADS": "1"}
    with open(log, "w") as file:
        command = [*torchrun, "-m", "robustlab.train", *SMALL, *arguments]
        agent = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    deadline = time.monotonic() + 120
    while agent.poll() is None and not begun(tmp_path)() and time.monotonic() < deadline:
        time.sleep(0.01)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(90) != 0  # torchrun's own code, whatever its processes end with
    assert code.read_text() == "85\n", log.read_text()
    assert not (run_folder(tmp_path) / "results.json").exists()
    train_two(arguments, tmp_path)
    assert_same_run(whole, run_folder(tmp_path))
