"""A moving average of the weights predicts; every method trains with it as without it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.config.compose import compose
from robustlab.engine.build_method import build_method
from robustlab.engine.method import Method
from tests.methods.grouped import grouped_digits
from tests.methods.harness import RUNTIME, assert_equal, run, snapshot
from tests.methods.test_ranks import COMMON, SHORT

FILES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml"))
VARIANTS = {
    "crosssplit by turns at once": ("crosssplit", "method.turn_order=simultaneous", "method.guess.source=both"),
    "crosssplit with precomputed targets": ("crosssplit", "method.perf.precompute_targets=true"),
    "jtt with errors during the epoch": ("jtt", "method.identification.errors=during"),
}
ALIKE = {"cobalt_image", "cobalt_shuffled", "crop", "crop_it", "early_crop", "crosssplit_official", "dense"}
"""Files of a class that another file stands for: their settings do not bear on the average."""
LAST_LAYER = {"dfr"}
"""Fits the last layer of what predicts, when training is over: of the average, where there is one."""


def trained(label: str, decay: str) -> Method:
    name, *overrides = VARIANTS.get(label, (label,))
    cfg = compose([f"method={name}", *COMMON, f"trainer.ema_decay={decay}", *overrides])
    for key, value in SHORT.items():
        group, _, last = key.rpartition(".")
        node = cfg.method.get(group) if group else cfg.method
        if node is not None and last in node:
            node[last] = value
    method = build_method(cfg, grouped_digits(subset=100), RUNTIME)
    run(method)
    return method


def training_state(method: Method, *, last_layer: bool) -> dict[str, Any]:
    """All that training depends on: of learners everything but the average."""
    state = snapshot(method)
    learners: dict[str, Any] = {}
    for name, learner in state["learners"].items():
        network = {key: value for key, value in learner["network"].items() if last_layer or "classifier" not in key}
        learners[name] = {**learner, "ema": None, "network": network}
    return {"learners": learners, "method": state["method"] if last_layer else None}


LABELS = [pytest.param(one, marks=[pytest.mark.slow] if one in ALIKE else []) for one in (*FILES, *VARIANTS)]


@pytest.mark.parametrize("label", LABELS)
def test_training_does_not_depend_on_the_average(label):
    plain, averaged = trained(label, "null"), trained(label, "0.9")
    last_layer = VARIANTS.get(label, (label,))[0] not in LAST_LAYER
    assert_equal(*(training_state(method, last_layer=last_layer) for method in (averaged, plain)))
    for learner in averaged.learners.values():
        assert learner.ema is not None
        raw, mean = learner.network.state_dict(), learner.ema.module.state_dict()
        assert any(not torch.equal(raw[key], mean[key]) for key in raw)
