"""The sweep file: its command lines are right, and each trial is a run of its own that the sweep knows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from robustlab.config.check import check
from robustlab.config.compose import compose
from tests.faults.fake_wandb import FakeWandb

FILE = Path(__file__).parents[2] / "scripts" / "wandb_sweep.yaml"


def sweep() -> dict:
    return yaml.safe_load(FILE.read_text())


def some(parameter: dict):
    return parameter.get("value", parameter.get("min", parameter.get("values", [None])[0]))


def test_the_command_line_of_a_trial_is_right():
    given = sweep()
    assert given["command"][:2] == ["${env}", "train"]
    assert given["command"][-1] == "${args_no_hyphens}"
    arguments = [f"{name}={some(parameter)}" for name, parameter in given["parameters"].items()]
    cfg = compose([*given["command"][2:-1], *arguments])
    check(cfg)
    assert cfg.optimizer.lr == 0.005
    assert cfg.compare is None
    assert cfg.dataset.val_fraction > 0, "what is selected on must not be the test split"


@pytest.mark.slow
def test_each_trial_is_a_run_that_the_sweep_knows(tmp_path):
    """`wandb sweep` and `wandb agent` as a user starts them; the server hands out two trials."""
    given = sweep()
    given["command"][2:2] = ["trainer.max_steps=3", "method.warmup.epochs=1", "trainer.device=cpu"]
    (tmp_path / "sweep.yaml").write_text(yaml.dump(given))
    trials = [
        {"type": "run", "run_id": name, "program": "train", "args": {"optimizer.lr": {"value": lr}}}
        for name, lr in (("first", 0.05), ("second", 0.1))
    ]
    with FakeWandb(trials=trials) as server:
        tools = Path(sys.executable).parent
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **server.environment(), "PATH": path, "OMP_NUM_THREADS": "1"}

        def wandb(*arguments: str) -> None:
            command = [str(tools / "wandb"), *arguments]
            subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=250, capture_output=True)

        wandb("sweep", "sweep.yaml")
        wandb("agent", "e/robustlab/sweep1")
        assert {name: run.sweep for name, run in server.runs.items()} == {"first": "sweep1", "second": "sweep1"}
        folders = {path.parent for path in tmp_path.glob("outputs/*/*/results.json")}
        ids = {(folder / "wandb" / "run_id").read_text().strip() for folder in folders}
        assert ids == {"first", "second"}
        for run in server.runs.values():
            assert [row["_step"] for row in run.rows()] == [3]
            assert run.complete
