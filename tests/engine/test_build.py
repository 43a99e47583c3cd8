"""Learners made to measure: what a method may set in place of the configuration."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR

from robustlab.config.compose import compose
from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.data.sources.digits import Digits
from robustlab.engine.build_data import build_data
from robustlab.engine.build_method import build_method
from robustlab.methods.erm import ERM
from robustlab.models.small_cnn import small_cnn
from tests.data.toy_source import Toy
from tests.methods.harness import RUNTIME, flat


@pytest.fixture(scope="module")
def new_learner():
    options = [
        "method=erm",
        "model=small_cnn",
        "model.widths=[8,16]",
        "optimizer=sgd",
        "scheduler=cosine",
        "noise=none",
    ]
    data = Data(Digits(), seed=0, subset=64, views={"weak": []})
    made = build_method(compose(options), data, RUNTIME).context.new_learner
    return partial(made, epochs=3, steps_per_epoch=5)


class Wrapped(nn.Module):
    """A backbone with a drawn parameter beside it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.slots = backbone, nn.Parameter(torch.randn(3, 4))


def test_a_wrapped_network_starts_from_the_same_weights_and_draws_the_rest_after_them(new_learner):
    plain, wrapped, again = new_learner("a"), new_learner("a", wrap=Wrapped), new_learner("a", wrap=Wrapped)
    assert isinstance(wrapped.network, Wrapped)
    inner = flat(wrapped.network.backbone.state_dict())
    assert all(torch.equal(value, inner[name]) for name, value in flat(plain.network.state_dict()).items())
    assert torch.equal(wrapped.network.slots, again.network.slots)
    assert not torch.equal(wrapped.network.slots, new_learner("b", wrap=Wrapped).network.slots)
    assert len(wrapped.optimizer.param_groups[0]["params"]) == len(plain.optimizer.param_groups[0]["params"]) + 1


def test_optimizer_scheduler_and_interval_replace_those_of_the_configuration(new_learner):
    configured = new_learner("a")
    assert isinstance(configured.optimizer, torch.optim.SGD)
    assert isinstance(configured.scheduler, CosineAnnealingLR)
    adam = new_learner("a", optimizer=partial(torch.optim.Adam, lr=2e-4), scheduler=None)
    assert isinstance(adam.optimizer, torch.optim.Adam)
    assert adam.lr == 2e-4
    assert adam.scheduler is None
    decaying = new_learner("a", scheduler=partial(ExponentialLR, gamma=0.5), interval="step")
    assert isinstance(decaying.optimizer, torch.optim.SGD)
    assert isinstance(decaying.scheduler, ExponentialLR)
    assert (configured.interval, decaying.interval) == ("epoch", "step")


def test_frozen_features_are_a_function_of_their_own_seed_and_file(tmp_path):
    options = ["method=erm", "noise=none", "model=small_cnn", "model.widths=[4,8]", "features=frozen"]
    options += ["dataset.views.weak=[]", "dataset.views.strong=[]", f"paths.cache_dir={tmp_path}", "trainer.device=cpu"]

    def features(*more: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        cfg = compose([*options, *more])
        data = build_data(cfg, RUNTIME)
        network = build_method(cfg, data, RUNTIME).learners["network"].network
        assert [tuple(value.shape) for value in network.state_dict().values()] == [(10, 8), (10,)]
        return next(data.evaluation("test", 400).epoch(0)).images, network.state_dict()

    (first, head), (same, other_head), (other, _) = features(), features("seed=1"), features("features.seed=1")
    assert torch.equal(first, same)
    assert not torch.equal(head["classifier.weight"], other_head["classifier.weight"])
    assert not torch.allclose(first, other)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        mine = small_cnn(num_classes=3, image_shape=(1, 8, 8), widths=(4, 8)).eval()
    torch.save(mine.state_dict(), tmp_path / "mine.pth")
    found, _ = features(f"features.weights={tmp_path / 'mine.pth'}")
    images = next(build_data(compose([*options, "~features"]), RUNTIME).evaluation("test", 400).epoch(0)).images
    assert torch.allclose(found[:, :, 0, 0], mine.features(images).detach(), atol=1e-5)


def test_a_method_that_needs_groups_is_refused_where_there_are_none():
    from robustlab.methods.erm import ERM

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ERM, "requires", frozenset({"groups"}))
        with pytest.raises(ConfigError, match="method=erm needs groups, which dataset=digits does not provide"):
            build_method(compose(["method=erm"]), Data(Toy(), seed=0, views={"weak": []}), RUNTIME)


class Alone(ERM):
    """A method that cannot share a batch."""

    single_process = "its samples wait for each other"


def test_a_method_for_one_process_is_refused_in_several():
    cfg = compose(["method=erm", "model=small_cnn", "noise=none"])
    cfg.method._target_ = f"{__name__}.Alone"
    data = Data(Digits(), seed=0, subset=128, views={"weak": []})
    assert isinstance(build_method(cfg, data, RUNTIME), Alone)
    with pytest.raises(ConfigError, match="supports one process, not 2: its samples wait for each other; start"):
        build_method(cfg, data, replace(RUNTIME, world_size=2))


def test_synchronised_statistics_on_cpus_are_refused(monkeypatch):
    cfg = compose(["trainer.sync_batchnorm=true", "trainer.device=cpu"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match=r"sync_batchnorm=true needs GPUs"):
        Runtime.from_config(cfg.trainer)
