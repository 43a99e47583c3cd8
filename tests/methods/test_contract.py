"""Every file of conf/method composes, builds, trains, predicts, saves and goes on, by itself."""

from functools import cache
from inspect import signature
from pathlib import Path

import pytest
import torch
from hydra.utils import get_method
from omegaconf import DictConfig

from robustlab.config.check import check
from robustlab.config.compose import compose
from robustlab.config.schema import LABELS
from robustlab.data.run_data import Data
from robustlab.engine.build_method import build_method
from robustlab.engine.method import Method
from tests.methods.grouped import grouped_digits
from tests.methods.harness import RUNTIME, assert_equal, flat, positions, restore, run, snapshot

FILES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml"))
EPOCHS = 2
SHORT = {
    "warmup": {"epochs": 1},
    "discover": {"epochs": 1, "warmup": 0.5},
    "slots": {"hidden": 16},
    "dfr": {"retrains": 3},
    "jtt": {"up_weight": 3},
}
"""Smaller values for training, where a method has these groups, or by its name."""
DEPARTURES = {
    "crop": {"criterion"},
    "crop_it": {"criterion", "rounds"},
    "early_crop": {"criterion"},
    "cobalt_shuffled": {"kind"},
    "cobalt_image": {"kind"},
}
"""Attributes in which a file is there to depart from the defaults of its class."""


@pytest.fixture(scope="module")
def data() -> Data:
    return grouped_digits()


@cache
def configured(name: str, epochs: int, short: bool) -> DictConfig:
    """Return a checked configuration, composed once for all of a method's builds."""
    options = [f"method={name}", "trainer.device=cpu", "trainer.batch_size=16", f"trainer.epochs={epochs}", "seed=3"]
    options += ["model=small_cnn", "model.widths=[8,16]", "optimizer=sgd", "scheduler=cosine"]
    cfg = compose(options)
    for group, values in SHORT.items() if short else ():
        if group in cfg.method:
            cfg.method[group].update(values)
        elif group == cfg.method.name:
            cfg.method.update(values)
    check(cfg)
    return cfg


def build(name: str, data: Data, *, epochs: int = EPOCHS, short: bool = True) -> Method:
    return build_method(configured(name, epochs, short), data, RUNTIME)


def test_there_are_files():
    assert set(FILES) >= {"erm", "crosssplit", "crosssplit_official", "elr", "co_teaching"}


@pytest.mark.parametrize("name", FILES)
def test_a_method_keeps_the_contract(name, data):
    method = build(name, data)
    places = positions(method)
    ends = run(method)
    assert len(ends) == sum(stage.epochs for stage in method.stages()) >= EPOCHS
    for end in ends:
        assert "loss" in end
        assert all(isinstance(value, float) and value == value for value in end.values())
        assert all(torch.tensor(value).isfinite() for value in end.values())

    images = next(data.evaluation("test", 30).epoch(0)).images
    parts = method.predictions(images)
    assert torch.equal(parts[""], method.predict(images))
    for logits in parts.values():
        assert (logits.shape, logits.dtype, logits.requires_grad) == ((30, 10), torch.float32, False)
    assert torch.equal(method.predict(images)[:10], method.predict(images[:10])) or torch.allclose(
        method.predict(images)[:10], method.predict(images[:10]), atol=1e-5
    )  # eval mode: the batch does not matter

    wanted = snapshot(method)
    for stop in (1, len(places) // 2, len(places) - 1):
        first = build(name, data)
        run(first, stop=stop)
        second = build(name, data)
        restore(second, snapshot(first))
        run(second, start=stop)
        assert_equal(snapshot(second), wanted)


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_every_argument_of_its_class(name):
    node = compose([f"method={name}"]).method
    cls = get_method(node._target_)
    assert set(signature(cls).parameters) == set(map(str, node)) - {"_target_", *LABELS}
    assert node.name == name


PROFILES = ("crosssplit_official", "dense")
"""Files that are there to depart from the defaults of their class."""


@pytest.mark.parametrize("name", [name for name in FILES if name not in PROFILES])
def test_defaults_of_a_file_are_those_of_its_class(name, data):
    cls = get_method(compose([f"method={name}"]).method._target_)
    configured, plain = build(name, data, epochs=60, short=False), cls()
    for key, value in vars(plain).items():
        if key in DEPARTURES.get(name, ()):
            assert getattr(configured, key) != value, key
        elif key == "settings":
            settings = configured.settings  # type: ignore[attr-defined]
            for group in vars(value):
                assert as_lists(getattr(settings, group)) == as_lists(getattr(value, group)), group
        else:
            assert getattr(configured, key) == value, key


def as_lists(group: object) -> object:
    if not hasattr(group, "__dict__"):
        return group
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(group).items()}


def test_initial_weights_are_a_function_of_seed_and_name_alone(data):
    first, second = build("crosssplit", data), build("co_teaching", data)
    one = flat(first.learners["network1"].network.state_dict())
    other = flat(second.learners["network1"].network.state_dict())
    assert {name for name in one if name not in other} == {name for name in one if name.startswith("projection")}
    assert all(torch.equal(one[name], other[name]) for name in other)
