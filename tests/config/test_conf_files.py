"""Every YAML file under conf/ composes and passes the check, with nothing registered anywhere."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest
from omegaconf import DictConfig, OmegaConf

from robustlab.config.check import problems
from robustlab.config.compose import session
from robustlab.config.hydra_session import conf_dir, load, without_hydra
from robustlab.config.run_names import run_name

Composer = Callable[..., DictConfig]


def choices() -> list[str]:
    """One override per file: `dataset=cifar10`; overlays and files that begin with `_` are parts of others."""
    found = []
    for path in sorted(conf_dir().rglob("*.yaml")):
        group, *rest = path.relative_to(conf_dir()).with_suffix("").parts
        if rest and group not in ("hydra", "overlay") and not rest[-1].startswith("_"):
            found.append(f"{group}={'/'.join(rest)}")
    return found


def companions(choice: str) -> list[str]:
    """What a choice needs beside it: the data set that a noise model is defined on."""
    group, _, name = choice.partition("=")
    if group != "noise":
        return []
    return [f"dataset={owner}" for owner in ("cifar100", "cifar10") if owner in name][:1]


@pytest.fixture(scope="module")
def composed() -> Iterator[Composer]:
    """Compose in one session, and each choice once; a key that only a user can know gets a value, e.g. a file."""
    with session() as hydra:

        @cache
        def compose(*overrides: str) -> DictConfig:
            cfg = without_hydra(load(hydra, overrides))
            for key in OmegaConf.missing_keys(cfg):
                OmegaConf.update(cfg, key, "given")
            return cfg

        yield compose


@pytest.mark.parametrize("choice", choices())
def test_composes_and_passes_the_check(choice, composed):
    cfg = composed(choice, *companions(choice))
    assert problems(cfg) == []
    run_name(cfg)


@pytest.mark.parametrize("choice", [choice for choice in choices() if choice.startswith("experiment=")])
def test_recipes_can_be_run_with_the_baseline(choice, composed):
    """A recipe keeps what belongs to its method in the method's own file, so that another method takes its place."""
    assert problems(composed(choice, "method=erm")) == []


def test_each_choice_is_a_run_of_its_own(composed):
    singles = [choice for choice in choices() if choice.split("=")[0] in ("dataset", "model", "method", "optimizer")]
    names = [run_name(composed(choice)) for choice in singles]
    assert len(set(names)) == len(names) - 3, "only the defaults of four groups give the same run"
