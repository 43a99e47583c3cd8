"""Composition for tests and scripts, and the points of a sweep."""

import pytest
from hydra.core.global_hydra import GlobalHydra

from robustlab.config.compose import compose, expand, session
from robustlab.config.hydra_session import all_options, conf_dir, options
from robustlab.core.errors import ConfigError


def test_the_points_of_a_sweep_in_hydras_order():
    assert expand(["method=erm,crosssplit", "seed=0,1", "trainer.epochs=3"]) == [
        ["method=erm", "seed=0", "trainer.epochs=3"],
        ["method=erm", "seed=1", "trainer.epochs=3"],
        ["method=crosssplit", "seed=0", "trainer.epochs=3"],
        ["method=crosssplit", "seed=1", "trainer.epochs=3"],
    ]
    assert [point[0] for point in expand(["seed=range(1,7,step=2)"])] == ["seed=1", "seed=3", "seed=5"]
    assert [point[0] for point in expand(["optimizer.lr=choice(0.1,1e-2)"])] == [
        "optimizer.lr=0.1",
        "optimizer.lr=0.01",
    ]
    assert {point[0] for point in expand(["optimizer=glob(*,exclude=timm*)"])} >= {"optimizer=sgd", "optimizer=adam"}
    assert expand(["tags=[a,b]"]) == [["tags=[a,b]"]], "a list is one value"
    assert expand([]) == [[]]
    assert len(expand(["seed=range(100)", "trainer.epochs=1,2"])) == 200


def test_points_compose():
    for point in expand(["method=erm,elr", "seed=0,1"]):
        cfg = compose(point)
        assert f"method={cfg.method.name}" in point
        assert f"seed={cfg.seed}" in point


def test_own_folder_of_options(tmp_path):
    (tmp_path / "optimizer").mkdir()
    text = (conf_dir() / "optimizer/sgd.yaml").read_text()
    (tmp_path / "optimizer" / "mine.yaml").write_text(text.replace("lr: 0.05", "lr: 0.77"))
    assert compose(["optimizer=mine"], config_dirs=[tmp_path]).optimizer.lr == 0.77
    assert compose(["optimizer=mine", f"hydra.searchpath=[file://{tmp_path}]"]).optimizer.lr == 0.77
    with session([tmp_path]):
        assert "mine" in options("optimizer")
    assert "mine" not in options("optimizer")
    with pytest.raises(ConfigError, match="there is no optimizer 'mine'"):
        compose(["optimizer=mine"])
    with pytest.raises(ConfigError, match="no such folder"):
        compose(config_dirs=[tmp_path / "nothing"])


def test_options_below_a_group():
    assert "crosssplit/cifar10_sym50" in all_options("experiment")
    assert "erm" in all_options("method")


def test_a_hydra_that_was_open_is_put_back():
    assert not GlobalHydra.instance().is_initialized()
    with session() as outer:
        compose(["seed=1"])
        with session():
            assert GlobalHydra.instance().hydra is not outer
        assert GlobalHydra.instance().hydra is outer
    assert not GlobalHydra.instance().is_initialized()


def test_what_does_not_compose_is_a_config_error():
    with pytest.raises(ConfigError, match="there is no dataset 'cifr10'; did you mean 'cifar10'"):
        compose(["dataset=cifr10"])
    with pytest.raises(ConfigError, match="'epoch'; did you mean 'epochs'"):
        compose(["trainer.epoch=1"])
