"""The run's name is a function of the settings that matter, and of nothing else."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from robustlab.config.compose import compose
from robustlab.config.resolvers import register
from robustlab.config.run_names import path_safe, run_name


@pytest.fixture(scope="module")
def base() -> str:
    return run_name(compose())


def test_the_name_tells_method_and_dataset(base):
    assert re.fullmatch(r"crosssplit-digits-[0-9a-f]{8}", base)
    assert run_name(compose(["method=erm", "dataset=cifar10"])).startswith("erm-cifar10-")


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=7"],
        ["paths.data_dir=/x", "paths.cache_dir=/y", "paths.output_dir=z"],
        ["paths.run_dir=outputs/q"],
        ["tracker=local", "tracker.wandb.project=p"],
        ["compare=null", "resume=false", "tags=[a]", "name=n"],
        ["trainer.device=cuda", "trainer.threads=3", "dataset.workers=9"],
        ["trainer.clip_norm=null", "optimizer.momentum=0.90"],
        ["dataset.val_fraction=0"],
    ],
)
def test_what_does_not_matter_leaves_the_name(base, overrides):
    assert run_name(compose(overrides)) == base


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.lr=0.1"],
        ["trainer.epochs=61"],
        ["noise.seed=3"],
        ["method.mixup.alpha=1"],
        ["trainer.deterministic=false"],
        ["dataset.subset=100"],
        ["trainer.ema_decay=0.9"],
    ],
)
def test_what_matters_changes_the_name(base, overrides):
    assert run_name(compose(overrides)) != base


def test_sources_below_the_data_folder_have_one_name_everywhere():
    names = {run_name(compose(["dataset=cifar10", f"paths.data_dir={folder}"])) for folder in ("/a", "b", "${name}")}
    assert len(names) == 1


def test_the_run_folder_holds_name_and_seed(base):
    cfg = compose(["seed=4", "paths.output_dir=/o"])
    assert cfg.paths.run_dir == f"/o/{base}/seed4"


def test_asking_for_the_name_changes_nothing():
    cfg = compose()
    before = OmegaConf.to_yaml(cfg)
    assert run_name(cfg) == run_name(cfg)
    assert OmegaConf.to_yaml(cfg) == before


VALUES = st.integers(-5, 5) | st.floats(-2, 2, allow_nan=False) | st.booleans() | st.none() | st.sampled_from("abc")


@given(st.dictionaries(st.sampled_from("uvwxyz"), VALUES, min_size=1), st.integers(0, 99))
def test_order_and_writing_of_numbers_do_not_matter(settings, seed):
    def named(values: dict) -> str:
        return run_name(DictConfig({"method": {"name": "m", **values}, "dataset": {"name": "d"}, "seed": 0}))

    shuffled = list(settings.items())
    random.Random(seed).shuffle(shuffled)
    respelt = {
        key: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for key, value in shuffled
    }
    assert named(respelt) == named(settings)
    first = next(iter(settings))
    assert named({**settings, first: "other"}) != named(settings)


def test_true_and_one_are_not_the_same():
    assert run_name(DictConfig({"seed": 0, "a": True})) != run_name(DictConfig({"seed": 0, "a": 1}))


@pytest.mark.parametrize(
    "name", ["../../etc", "/abs", "a/b", "..", ".", "", "a\x00b", "a\nb", "$(rm)", "a;b", "x" * 500, "ü ñ"]
)
def test_names_are_one_harmless_part_of_a_path(name):
    register()
    found = run_name(DictConfig({"seed": 0, "method": {"name": name}, "dataset": {"name": name}}))
    assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]*-[0-9a-f]{8}", found)
    assert len(found) < 128
    assert path_safe("Cifar-10.v2") == "Cifar_10.v2"


def test_resolving_in_place_gives_the_run_folder_of_the_run(monkeypatch):
    from omegaconf import OmegaConf

    from robustlab.config.compose import compose

    monkeypatch.setenv("ROBUSTLAB_DATA", "/some/where")
    overrides = ["dataset=cifar10_parquet", "seed=3"]
    expected = compose(overrides).paths.run_dir
    resolved = compose(overrides)
    OmegaConf.resolve(resolved)  # what `train --cfg job --resolve` does
    assert resolved.paths.run_dir == expected
