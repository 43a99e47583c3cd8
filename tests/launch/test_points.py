"""Points of a sweep: composed in the quick way they are what each would be by itself; all errors at once."""

import pytest
from omegaconf import OmegaConf

from robustlab.config.compose import session
from robustlab.config.hydra_session import load, without_hydra
from robustlab.core.errors import ConfigError
from robustlab.sweeps.points import checked, expand_sweep, read_sweep


def by_itself(hydra, point):
    return without_hydra(load(hydra, point))


def test_points_are_composed_as_each_would_be_by_itself(tmp_path):
    overrides = [
        "method=demp,crosssplit,elr",
        "setting=cifar10_cpu,cifar100",
        "noise=symmetric",
        "optimizer=adamw",
        "optimizer.lr=0.1,0.2",
        "++noise.model.rate=0.25",
        "tags=[a,b]",
        "seed=3,4",
        f"paths.output_dir={tmp_path}",
    ]
    with session() as hydra:
        points = checked(hydra, expand_sweep(hydra, overrides, {}), [])
        assert len(points) == 24
        for point in points:
            alone = by_itself(hydra, point.overrides)
            assert point.run_dir == alone.paths.run_dir
            assert point.settings["optimizer"]["lr"] == alone.optimizer.lr
            assert point.settings["method"] == OmegaConf.to_container(alone.method, resolve=True)
            assert (point.settings["seed"], point.settings["tags"]) == (alone.seed, ["a", "b"])
    assert len({point.run_dir for point in points}) == 24


def test_values_of_one_point_do_not_reach_the_next():
    with session() as hydra:
        first, second, third = checked(hydra, [["optimizer.lr=0.5"], [], ["optimizer.lr=0.25"]], [])
    assert first.settings["optimizer"]["lr"] == 0.5
    assert second.settings["optimizer"]["lr"] not in (0.5, 0.25)
    assert third.settings["optimizer"]["lr"] == 0.25


def test_every_point_is_checked_and_all_errors_come_at_once():
    points = [["seed=0"], ["optimizer.lr=-1"], ["optimizer.lrr=1"], ["method=erm", "trainer.epochs=abc"]]
    with session() as hydra, pytest.raises(ConfigError) as caught:
        checked(hydra, points, [])
    message = str(caught.value)
    assert message.startswith("3 problems in the configuration")
    for part in (
        "optimizer.lr: ",
        "did you mean 'lr'",
        "trainer.epochs: ",
        "(in the point method=erm trainer.epochs=abc)",
    ):
        assert part in message


def test_a_sweep_that_names_no_point_says_so():
    with session() as hydra, pytest.raises(ConfigError, match="no values, so the sweep has no points"):
        read_sweep(hydra, ["method=glob(nothing*)"])
