"""Every YAML file under conf/ composes and passes the check, with nothing registered anywhere."""

import pytest
from omegaconf import DictConfig, OmegaConf

from robustlab.config.check import problems
from robustlab.config.compose import compose, conf_dir
from robustlab.config.resolvers import run_name


def choices() -> list[str]:
    """One override per file: `dataset=cifar10`; files that begin with `_` are parts of others."""
    found = []
    for path in sorted(conf_dir().rglob("*.yaml")):
        group, *rest = path.relative_to(conf_dir()).with_suffix("").parts
        if rest and group != "hydra" and not rest[-1].startswith("_"):
            found.append(f"{group}={'/'.join(rest)}")
    return found


def companions(choice: str) -> list[str]:
    """What a choice needs beside it: the data set that a noise model is defined on."""
    group, _, name = choice.partition("=")
    if group != "noise":
        return []
    return [f"dataset={owner}" for owner in ("cifar100", "cifar10") if owner in name][:1]


def composed(*overrides: str) -> DictConfig:
    """Compose, with a value for each key that only a user can know, e.g. a file of labels."""
    cfg = compose(list(overrides))
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, "given")
    return cfg


@pytest.mark.parametrize("choice", choices())
def test_composes_and_passes_the_check(choice):
    cfg = composed(choice, *companions(choice))
    assert problems(cfg) == []
    run_name(cfg)


@pytest.mark.parametrize("choice", [choice for choice in choices() if choice.startswith("experiment=")])
def test_recipes_can_be_run_with_the_baseline(choice):
    """A recipe keeps what belongs to its method in the method's own file, so that another method takes its place."""
    assert problems(compose([choice, "method=erm"])) == []


def test_each_choice_is_a_run_of_its_own():
    singles = [choice for choice in choices() if choice.split("=")[0] in ("dataset", "model", "method", "optimizer")]
    names = [run_name(composed(choice)) for choice in singles]
    assert len(set(names)) == len(names) - 3, "only the defaults of four groups give the same run"
