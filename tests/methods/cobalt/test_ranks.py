"""Two processes with a share of each batch compute what one process computes with the whole."""

import pytest
import torch

from tests.methods.cobalt import rank_program
from tests.methods.cobalt.toy import CPU
from tests.methods.harness import assert_equal
from tests.ranks import run_ranks


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path):
    run_ranks(rank_program.work, [(0, 2), (1, 2)], str(tmp_path))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    whole = rank_program.compute(CPU)
    for name in ("contrast", "quantisation", "distillation"):
        mean = (first["found"][name] + second["found"][name]) / 2
        torch.testing.assert_close(mean, whole[name])
    for name in ("gradient", "gradient_of_logits"):
        for rank, part in enumerate((first, second)):
            torch.testing.assert_close(part["found"][name], whole[name][rank::2], atol=1e-6, rtol=1e-5)
    for name in ("codes", "usage", "centre"):
        assert torch.equal(first["found"][name], second["found"][name])
        torch.testing.assert_close(first["found"][name], whole[name])
    parts = ("codes", "centre", "student", "teacher", "samples")
    assert_equal(*({name: part["trained"][name] for name in parts} for part in (first, second)))
    assert torch.equal(first["trained"]["samples"], torch.arange(96))
    assert first["trained"]["table"].shape == (96, 3)
