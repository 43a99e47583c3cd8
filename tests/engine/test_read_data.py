"""Data are read once where runs of one command share them, and never stand in for other data."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from robustlab.config.compose import compose
from robustlab.core.runtime import Runtime
from robustlab.engine import read_data as module
from robustlab.engine.read_data import read_data, shared_data

CPU = Runtime(torch.device("cpu"))


@pytest.fixture
def reads(monkeypatch):
    """Return the list to which each reading of data is appended."""
    done: list[str] = []
    real = module.build_data
    monkeypatch.setattr(module, "build_data", lambda cfg, runtime: done.append("read") or real(cfg, runtime))
    return done


def composed(*overrides: str):
    return compose(["method=erm", "dataset.subset=60", *overrides])


def test_equal_settings_share_data_and_each_other_one_has_its_own(reads):
    plain = composed()
    with shared_data():
        first = read_data(plain, CPU)
        assert read_data(composed("method=elr", "trainer.epochs=9", "optimizer.lr=0.3", "model=mlp"), CPU) is first
        assert reads == ["read"]
        for other in ("seed=1", "noise.seed=7", "noise=symmetric", "dataset.val_fraction=0.5", "dataset.subset=61",
                      "dataset.storage=streaming", "dataset.workers=1", "paths.cache_dir=elsewhere"):  # fmt: skip
            assert read_data(composed(other), CPU) is not read_data(plain, CPU), other
        assert read_data(plain, CPU) is not read_data(plain, replace(CPU, channels_last=True))


def test_other_data_replace_those_at_hand_and_the_end_of_the_block_forgets_them(reads):
    with shared_data():
        first = weakref.ref(read_data(composed(), CPU))
        second = weakref.ref(read_data(composed("seed=1"), CPU))
        gc.collect()
        assert (first(), second() is None) == (None, False)
        with shared_data():  # a block inside another one goes on with what is there
            assert read_data(composed("seed=1"), CPU) is second()
    gc.collect()
    assert second() is None
    assert reads == ["read", "read"]
    read_data(composed(), CPU)
    read_data(composed(), CPU)
    assert len(reads) == 4


def test_data_that_cannot_be_read_leave_nothing_behind(monkeypatch, reads):
    def fail(cfg, runtime):
        raise OSError("gone")

    with shared_data():
        first = read_data(composed(), CPU)
        with monkeypatch.context() as patch:
            patch.setattr(module, "build_data", fail)
            with pytest.raises(OSError, match="gone"):
                read_data(composed("seed=1"), CPU)
        assert read_data(composed(), CPU) is not first
