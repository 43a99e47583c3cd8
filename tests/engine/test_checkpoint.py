import os
import pickle

import numpy as np
import pytest
import torch

from robustlab.engine import checkpoint
from robustlab.engine.checkpoint import Checkpoints, read_checked, rng_state, set_rng_state, write_atomically
from robustlab.errors import RunFolderError


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


class Death(BaseException):
    pass


def crash_points(monkeypatch, tmp_path, save):
    """Run `save` again and again, dying at the k-th write, fsync or rename, until it gets through; yield after each."""
    for k in range(1, 500):
        folder = tmp_path / str(k)
        left = [k]

        def die_at(call, left=left):
            def wrapped(*args, **kwargs):
                left[0] -= 1
                if left[0] == 0:
                    raise Death
                return call(*args, **kwargs)

            return wrapped

        checkpoints = Checkpoints(folder)
        checkpoints.save(state(1))
        checkpoints.save(state(2))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", die_at(os.fsync))
            patch.setattr(os, "replace", die_at(os.replace))
            real_save = torch.save

            def torn(value, file, real_save=real_save, left=left):
                left[0] -= 1
                if left[0] == 0:
                    file.write(b"PK half a file")
                    file.flush()
                    raise Death
                real_save(value, file)

            patch.setattr(torch, "save", torn)
            try:
                save(checkpoints, state(3))
            except Death:
                yield checkpoints
                continue
        return
    raise AssertionError("never got through")


def test_dying_at_any_point_of_a_save_leaves_the_old_or_the_new_checkpoint(monkeypatch, tmp_path):
    points = 0
    for checkpoints in crash_points(monkeypatch, tmp_path, Checkpoints.save):
        loaded, warnings = Checkpoints(checkpoints.folder).load()
        assert loaded is not None
        assert loaded["step"] in (2, 3)
        assert warnings == []
        assert not list(checkpoints.folder.glob(".*.tmp"))
        points += 1
    assert points >= 6


def test_the_crash_test_finds_a_writer_that_writes_in_place(monkeypatch, tmp_path):
    def in_place(checkpoints, value):
        with open(checkpoints.last, "wb") as file:
            torch.save({"schema": 1, **value}, file)
            os.fsync(file.fileno())

    lost = 0
    for checkpoints in crash_points(monkeypatch, tmp_path, in_place):
        _, warnings = Checkpoints(checkpoints.folder).load()
        lost += bool(warnings)
    assert lost > 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "hole", "empty", "text"])
def test_damage_is_found_and_the_previous_checkpoint_used(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    content = bytearray(checkpoints.last.read_bytes())
    position = content.index(torch.full((300,), 2.0).numpy().tobytes()) + 400
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[position] ^= 1
    elif damage == "hole":
        content[position : position + 100] = bytes(100)
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(b"not a checkpoint")
    checkpoints.last.write_bytes(content)
    loaded, warnings = checkpoints.load()
    assert loaded is not None
    assert loaded["step"] == 1
    assert len(warnings) == 1
    assert "last.damaged" in warnings[0]


def test_without_a_whole_checkpoint_the_run_does_not_start_over_silently(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    checkpoints.last.write_bytes(b"")
    for _ in range(2):  # nor when it is started again, as a batch system may do by itself
        with pytest.raises(RunFolderError, match=r"last\.damaged.*resume=false"):
            checkpoints.load()


class Payload:
    def __reduce__(self):
        return (os.mkdir, (os.environ["SENTINEL"],))


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("SENTINEL", str(tmp_path / "sentinel"))
    torch.save({"schema": 1, "payload": Payload()}, tmp_path / "bad.pt")
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_checked(tmp_path / "bad.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_checked(tmp_path / "plain.pt")
    assert not (tmp_path / "sentinel").exists()


def test_a_full_disk_names_the_path_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(value, file):
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(RunFolderError, match=r"last\.pt.*earlier checkpoint is intact"):
        write_atomically(tmp_path / "last.pt", {})
    assert list(tmp_path.iterdir()) == []


def test_random_states_come_back():
    import random

    before = rng_state()
    drawn = (random.random(), np.random.rand(), torch.rand(2).tolist())
    set_rng_state(before)
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == drawn
