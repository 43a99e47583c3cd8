"""Every file of conf/method trains on 2 and on 4 processes as on one: the same losses, weights and evaluations."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_method
from omegaconf import OmegaConf

from robustlab.config.compose import compose
from robustlab.methods.label_noise.crosssplit.label_record import PER_SAMPLE
from tests.methods import rank_program
from tests.methods.rank_program import BATCH, Case
from tests.ranks import run_ranks

FILES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml"))
VARIANTS = {
    "erm with mixup": ("erm", "method.mixup_alpha=0.4"),
    "erm with accumulation, clipping and averaging": (
        "erm",
        "trainer.accumulate=2",
        "trainer.clip_norm=0.5",
        "trainer.ema_decay=0.9",
    ),
    "erm_cb by weights": ("erm_cb", "method.balance=loss"),
    "crosssplit with precomputed targets": ("crosssplit", "method.perf.precompute_targets=true"),
    "crosssplit by turns at once": ("crosssplit", "method.turn_order=simultaneous", "method.guess.source=both"),
    "crosssplit in bf16": ("crosssplit", "trainer.precision=bf16"),
    "dfr on training images": ("dfr", "method.split=train"),
    "jtt with errors during the epoch": ("jtt", "method.identification.errors=during"),
    "demp with deaths": (
        "demp",
        "method.reg.peak=10",
        "method.noise.std=0.01",
        "method.death.mode=eps",
        "method.death.eps=0.5",
    ),
    "subg": ("subg", "trainer.batch_size=10"),
}
COMMON = [
    "trainer.device=cpu",
    "trainer.epochs=2",
    f"trainer.batch_size={BATCH}",
    "model=small_cnn",
    "model.widths=[8,16]",
    "optimizer=sgd",
    "optimizer.lr=0.02",
    "scheduler=cosine",
    "seed=3",
]
SHORT = {
    "warmup.epochs": 1,
    "discover.epochs": 1,
    "discover.warmup": 0.5,
    "slots.hidden": 16,
    "up_weight": 3,
    "retrains": 2,
    "surgery.every": 3,
    "death.num_samples": 50,
    "scoring.batches": 2,
    "scoring.batch_size": 30,
    "rounds.steps": 2,
    "latest": 0.5,
}
"""Values of a method's settings, where it has them, that let everything happen within two epochs."""
PER_RANK = {f"record/{name}" for name in PER_SAMPLE}
"""State of CrossSplit that each rank has for its own rows, and less than anything elsewhere."""
TOLERANCE = 5e-4
"""Relative and absolute. Sums in another order grow to half of it in the steps of a case; a share of a batch that is
given a wrong weight, to more than five times as much, within a few steps."""
COARSE = {"crosssplit in bf16": 2e-2}
"""Tolerances of cases in which a value's last bit is larger; their weights soon drift apart, and a guess near a tie may
fall the other way: 0.014 where it is one of 72 wrong labels that are counted."""


@functools.cache
def make_case(label: str) -> Case:
    name, *overrides = VARIANTS.get(label, (label,))
    cfg = compose([f"method={name}", *COMMON])
    for key, value in SHORT.items():
        if OmegaConf.select(cfg.method, key, default="absent") != "absent":
            OmegaConf.update(cfg.method, key, value)
    cfg.merge_with_dotlist(overrides)
    return Case(label, cfg)


LABELS = [*FILES, *(label for label in VARIANTS if label not in FILES)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[tuple[int, int], dict[str, Any]]:
    """What came out, by rank and number of processes."""
    folder = tmp_path_factory.mktemp("ranks")
    cases = [make_case(label) for label in LABELS]
    places = [(rank, world_size) for world_size in (1, 2, 4) for rank in range(world_size)]
    run_ranks(rank_program.work, places, cases, str(folder))
    return {place: torch.load(folder / f"{place[1]}-{place[0]}.pt", weights_only=True) for place in places}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("label", LABELS)
def test_ranks_train_as_one_process(outcomes, label, world_size):
    alone = outcomes[0, 1][label]
    ranks = [outcomes[rank, world_size][label] for rank in range(world_size)]
    reason = get_method(make_case(label).cfg.method._target_).single_process
    if reason is not None:
        assert all(isinstance(one, str) and reason in one for one in ranks)
        return
    tolerance = COARSE.get(label, TOLERANCE)
    first, *others = ranks
    for one in others:  # to the bit
        assert one["live"] == first["live"]
        for part in ("learners", "method"):
            names = first[part].keys() - PER_RANK
            assert [name for name in names if not torch.equal(one[part][name], first[part][name])] == []
    assert first["losses"] == near(alone["losses"], tolerance)
    assert first["measured"] == near(alone["measured"], tolerance)
    assert [end.keys() for end in first["ends"]] == [end.keys() for end in alone["ends"]]
    for end, expected in zip(first["ends"], alone["ends"], strict=True):
        assert end == near(expected, tolerance)
    assert first["live"] == alone["live"]
    for part in () if label in COARSE else ("learners", "method"):
        assert first[part].keys() == alone[part].keys()
        found = {name: torch.stack([one[part][name] for one in ranks]).amax(dim=0) for name in first[part]}
        torch.testing.assert_close(found, alone[part], rtol=tolerance, atol=tolerance)


def near(expected: Any, tolerance: float) -> Any:
    return pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.slow
def test_units_do_die(outcomes):
    """Without that the case of DemP would say nothing of removals."""
    live = outcomes[0, 1]["demp with deaths"]["live"]
    assert 1 <= len(live["network/conv2"]) < 16
