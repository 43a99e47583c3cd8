import numpy as np
import torch

from robustlab.engine.checkpoint import Checkpoints, read_checked, rng_state, set_rng_state


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((300,), float(step)), "rng": rng_state()}


def test_a_checkpoint_holds_plain_types_and_the_previous_one_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.load() == (None, [])
    for step in (1, 2, 3):
        checkpoints.save(state(step))
    assert read_checked(checkpoints.last)["step"] == 3
    assert read_checked(checkpoints.previous)["step"] == 2
    assert torch.load(checkpoints.last, weights_only=True)["step"] == 3
    assert {path.name for path in checkpoints.folder.iterdir()} == {"last.pt", "previous.pt"}


def test_random_states_come_back():
    import random

    before = rng_state()
    drawn = (random.random(), np.random.rand(), torch.rand(2).tolist())
    set_rng_state(before)
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == drawn
