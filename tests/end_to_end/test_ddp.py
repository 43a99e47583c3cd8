"""Two processes with a share of each batch compute what one process computes with the whole batch."""

import socket

import pytest

from tests.end_to_end.harness import assert_same_run, interrupt, rows, run_folder, start, train

COMMAND = ["model.norm=group", "trainer.epochs=2", "trainer.log_every=1", "dataset.subset=256", "trainer.batch_size=64"]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def start_two(arguments, folder):
    """Start both ranks as torchrun does, through the variables that it sets."""
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [
        start(arguments, folder / f"rank{rank}.txt", {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]


def train_two(arguments, folder):
    processes = start_two(arguments, folder)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0], (folder / "rank0.txt").read_text()


@pytest.mark.parametrize("method", ["erm", "elr"])
def test_two_ranks_have_the_losses_of_one_process_with_the_same_global_batch(tmp_path, method):
    arguments = [f"method={method}", *COMMAND]
    assert train([*arguments, f"paths.output_dir={tmp_path / 'one'}"], tmp_path / "log.txt") == 0
    train_two([*arguments, f"paths.output_dir={tmp_path / 'two'}"], tmp_path)
    one, two = rows(run_folder(tmp_path / "one")), rows(run_folder(tmp_path / "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name in first.keys() & {"train/loss", "test/loss", "test/accuracy"}:
            assert second[name] == pytest.approx(first[name], abs=2e-4), (name, first["step"])


def test_both_ranks_of_crosssplit_stop_and_go_on_together(tmp_path):
    import signal

    arguments = ["method=crosssplit", "method.warmup.epochs=1", *COMMAND, "trainer.epochs=6"]
    train_two([*arguments, f"paths.output_dir={tmp_path / 'whole'}"], tmp_path)
    broken = [*arguments, f"paths.output_dir={tmp_path / 'broken'}"]
    first, second = start_two(broken, tmp_path)

    def begun() -> bool:
        return any(path.stat().st_size > 2000 for path in (tmp_path / "broken").glob("*/seed*/metrics.jsonl"))

    interrupt(first, signal.SIGTERM, begun)  # only one rank gets the signal: both must save and stop
    second.join(60)
    assert [first.exitcode, second.exitcode] == [85, 85], (tmp_path / "rank0.txt").read_text()
    train_two(broken, tmp_path)
    assert_same_run(run_folder(tmp_path / "whole"), run_folder(tmp_path / "broken"))
