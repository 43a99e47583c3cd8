"""`Trackers`: which row goes where, and what a resume leaves of the rows."""

import json
import subprocess
import sys

import pytest

from robustlab.core.errors import ConfigError
from robustlab.tracking.jsonl import read_rows
from robustlab.tracking.trackers import Trackers

FILES_ONLY = {"wandb": {"mode": "disabled"}, "tensorboard": {"enabled": False}}


def build(folder, cfg=FILES_ONLY, **keywords):
    return Trackers.from_config(cfg, run_dir=folder, run_name="erm-digits-0-seed0", config={"seed": 0}, **keywords)


def steps(trackers, first, last):
    for step in range(first, last):
        trackers.log({"train/loss": 1 / (step + 1), "time/step": 0.1}, stage="train", epoch=0, step=step, split="train")


def test_timing_is_kept_apart_from_what_is_deterministic(tmp_path):
    trackers = build(tmp_path)
    values = {"test/accuracy": 0.5, "time/seconds": 2.0, "test/loss": float("nan")}
    trackers.log(values, stage="warm_up", epoch=3, step=120, split="epoch")
    trackers.log({"time/seconds": 3.0}, stage="warm_up", epoch=4, step=160, split="epoch")
    trackers.finish(0)
    head = {"stage": "warm_up", "epoch": 3, "step": 120, "split": "epoch"}
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {**head, "test/accuracy": 0.5, "test/loss": "NaN"}
    ]
    assert [row["time/seconds"] for row in read_rows(tmp_path / "timing.jsonl")] == [2.0, 3.0]


@pytest.mark.parametrize("late", [False, True], ids=["at construction", "load_state_dict"])
def test_resume_neither_doubles_nor_loses_rows(tmp_path, late):
    first = build(tmp_path)
    steps(first, 0, 5)
    first.sync()
    state = json.loads(json.dumps(first.state_dict()))  # plain types
    steps(first, 5, 9)  # written after the checkpoint that the run goes on from
    first.finish(1)
    second = build(tmp_path, resume_state=None if late else state)
    if late:
        second.load_state_dict(state)
    assert second.state_dict() == state
    steps(second, 5, 7)
    second.finish(0)
    for file in ("metrics.jsonl", "timing.jsonl"):
        assert [row["step"] for row in read_rows(tmp_path / file)] == list(range(7))


def test_a_run_that_fails_before_its_first_row_leaves_the_files_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    build(tmp_path).finish(1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_other_ranks_write_nothing(tmp_path):
    trackers = build(tmp_path, {"wandb": {"mode": "online"}, "tensorboard": {"enabled": True}}, is_main=False)
    steps(trackers, 0, 3)
    trackers.sync()
    trackers.summary({"a": 1})
    trackers.image("picture", tmp_path / "none.png", step=1)
    trackers.load_state_dict(trackers.state_dict())
    trackers.finish(0)
    assert trackers.state_dict() == {}
    assert list(tmp_path.iterdir()) == []


def test_files_only_imports_neither_wandb_nor_torch(tmp_path):
    program = (
        "import sys; from pathlib import Path; from robustlab.tracking.trackers import Trackers\n"
        "cfg = {'wandb': {'mode': 'disabled'}}\n"
        "trackers = Trackers.from_config(cfg, run_dir=Path(sys.argv[1]), run_name='x', config={})\n"
        "trackers.log({'a': 1.0}, stage='train', epoch=0, step=0, split='train')\n"
        "trackers.finish(0)\n"
        "print({'wandb', 'torch', 'tensorboard'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_tensorboard_without_its_package_is_a_config_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"tensorboard.*not installed.*uv sync --extra tensorboard"):
        build(tmp_path, {"wandb": {"mode": "disabled"}, "tensorboard": {"enabled": True}})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_scalars_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cfg = {"wandb": {"mode": "disabled"}, "tensorboard": {"enabled": True}}
    trackers = build(tmp_path, cfg)
    steps(trackers, 0, 3)
    Image.new("L", (8, 8)).save(tmp_path / "picture.png")
    trackers.image("picture", tmp_path / "picture.png", step=2)
    trackers.sync()
    state = trackers.state_dict()
    steps(trackers, 3, 5)
    trackers.finish(0)
    trackers = build(tmp_path, cfg, resume_state=state)
    steps(trackers, 3, 6)
    trackers.finish(0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3, 4, 5]
    assert [event.step for event in events.Images("picture")] == [2]
