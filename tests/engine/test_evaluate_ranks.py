"""Several processes measure what one does, whether each sees all samples or its share."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.engine.evaluate import Outcomes, evaluate, evaluate_splits
from robustlab.engine.learner import Learner
from tests.engine.planted import TEST, Planted, reader
from tests.ranks import joined, run_ranks


def measure(rank: int, world_size: int) -> dict:
    runtime = Runtime(torch.device("cpu"), rank=rank, world_size=world_size)
    data = Data(Planted(), seed=0, rank=rank, world_size=world_size)
    method = reader(data, runtime, {"test": torch.arange(20)[:, None] % 3})
    measured = evaluate_splits(method, data, batch_size=4, runtime=runtime)
    outcomes = Outcomes()
    evaluate(method, data.evaluation("test", 4, shard=True), "test", runtime=runtime, outcomes=outcomes)
    return {"measured": measured, "right": outcomes.gathered(runtime).tolist()}


def statistics(rank: int, world_size: int) -> list[list[float]]:
    """Running means, variances and a buffer that is none of these, after a learner's epoch of its own."""
    runtime = Runtime(torch.device("cpu"), rank=rank, world_size=world_size)
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    network.register_buffer("own", torch.tensor([float(rank)]))
    learner = Learner(network, runtime=runtime, optimizer=partial(torch.optim.SGD, lr=0.1), ema_decay=0.9)
    learner(torch.tensor([[0.0, 2.0 * rank], [0.0, 4.0 * rank]]))
    learner.end_epoch()
    own = dict(network.named_buffers())
    return [own[name].tolist() for name in ("0.running_mean", "0.running_var", "own")]


def one_of(rank: int, world_size: int, folder: str) -> None:
    with joined(rank, world_size, folder):
        found = measure(rank, world_size) | {"statistics": statistics(rank, world_size)}
        Path(folder, f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_three_processes_measure_what_one_does(tmp_path):
    run_ranks(one_of, [(rank, 3) for rank in range(3)], str(tmp_path))
    alone = measure(0, 1)
    assert alone["measured"]["test/worst_group"] == 0.5
    assert "test/inferred_worst" in alone["measured"]
    assert alone["right"] == [float(label == said) for label, _, said in TEST]
    for rank in range(3):
        # means of 3 * rank and variances of 2 * rank^2, with momentum 0.1 from 0 and 1
        means, variances, own = json.loads((tmp_path / f"{rank}.json").read_text())["statistics"]
        assert means == pytest.approx([0.0, 0.1 * 3])
        assert variances == pytest.approx([0.9, 0.9 + 0.1 * 2 * (0 + 1 + 4) / 3])
        assert own == [rank]
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["right"] == alone["right"]
        assert found["measured"].keys() == alone["measured"].keys()
        for name, value in alone["measured"].items():  # a loss is a sum whose order the shares change
            assert found["measured"][name] == (pytest.approx(value, rel=1e-6) if name.endswith("loss") else value)
