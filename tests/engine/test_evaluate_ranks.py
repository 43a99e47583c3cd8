"""Several processes measure what one does, whether each sees all samples or its share."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from robustlab.data.module import Data
from robustlab.engine.evaluate import Outcomes, evaluate, evaluate_splits
from robustlab.engine.runtime import Runtime
from tests.engine.planted import TEST, Planted, reader


def measure(rank: int, world_size: int) -> dict:
    runtime = Runtime(torch.device("cpu"), rank=rank, world_size=world_size)
    data = Data(Planted(), seed=0, rank=rank, world_size=world_size)
    method = reader(data, runtime, {"test": torch.arange(20)[:, None] % 3})
    measured = evaluate_splits(method, data, batch_size=4, runtime=runtime)
    outcomes = Outcomes()
    evaluate(method, data.evaluation("test", 4, shard=True), "test", runtime=runtime, outcomes=outcomes)
    return {"measured": measured, "right": outcomes.gathered(runtime).tolist()}


def one_of(rank: int, world_size: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    Path(folder, f"{rank}.json").write_text(json.dumps(measure(rank, world_size)))


@pytest.mark.slow
def test_three_processes_measure_what_one_does(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.test_evaluate_ranks", "torchmetrics.classification"])
    processes = [context.Process(target=one_of, args=(rank, 3, str(tmp_path))) for rank in range(3)]
    for process in processes:
        process.start()
    alone = measure(0, 1)
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert alone["measured"]["test/worst_group"] == 0.5
    assert "test/inferred_worst" in alone["measured"]
    assert alone["right"] == [float(label == said) for label, _, said in TEST]
    for rank in range(3):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
