"""Every diagnostic only observes: nothing that training depends on is another after it has measured."""

from pathlib import Path

import pytest
import torch
import yaml

from robustlab.config.build import build
from robustlab.engine.diagnostic import Clock
from robustlab.methods.erm import ERM
from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit
from tests.methods.harness import Options, flat, make_context, make_data, run, snapshot

FOLDER = Path(__file__).parents[2] / "conf" / "diagnostics"
OPTIONS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def crosssplit() -> CrossSplit:
    return CrossSplit(warmup={"epochs": 1}, proj_dim=8)  # type: ignore[arg-type]


def all_of(method):
    """Everything that the next step of training depends on, by name."""
    learners = method.learners.items()
    gradients = {f"{name}/{key}": value.grad for name, one in learners for key, value in one.network.named_parameters()}
    return {
        **flat(snapshot(method)),
        **{key: value.clone() for key, value in gradients.items() if value is not None},
        "torch": torch.get_rng_state(),
    }


@pytest.mark.parametrize("make", [ERM, crosssplit])
@pytest.mark.parametrize("option", OPTIONS)
def test_it_leaves_all_as_it_was(option, make):
    method = make()
    options = Options(learner={"ema_decay": 0.9})
    method.build(make_context(make_data(train=60), epochs=2, batch_size=10, options=options))
    run(method)
    before = all_of(method)
    for node in yaml.safe_load((FOLDER / f"{option}.yaml").read_text()).values():
        diagnostic = build(node)
        diagnostic.build(method, method.context)
        clock = Clock("train", 1, 2, 12)
        assert diagnostic.due(clock)
        assert diagnostic.measure(clock)
    after = all_of(method)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
