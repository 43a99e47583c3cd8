"""F15: every leaf of a composed configuration with wrong values. Each is refused by name, before torch is imported."""

import copy
import math
from typing import Any

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from robustlab.config.check import problems
from robustlab.config.compose import compose
from tests.end_to_end.test_cli_errors import program

METHODS = ["crosssplit", "demp", "cobalt", "erm", "groupdro"]
MAY_BE_NEGATIVE = ("fill", "mean", "degrees", "translate", "shear", "eta_min", "dampening", "exponent")
BOUND_BY_CONSTRUCTOR = (
    "dataset.source.std", "method.reg.span", "method.split.seed",
    "dataset.views.strong[1].scale", "model.widths", "model.convs", "model.stride",
    "scheduler.schedule.T_max", "method.jsd.eps", "method.gamma.", "method.views.",
)  # fmt: skip
"""Numbers whose bounds are not known before the object is made: it refuses them then, or they follow from others."""
KINDS = (int, float, bool, str, type(None), list)
WRONG: dict[str, dict[type, Any]] = {
    "a group": {kind: {"nonsense": 1} for kind in KINDS},
    "infinite": dict.fromkeys(KINDS, math.inf),
    "not a number": dict.fromkeys(KINDS, math.nan),
    "empty": {int: "", float: "", bool: ""},
    "out of range": {int: -1, float: -1.0, bool: -1},
}


def leaves(node: Any, where: str = ""):
    """Yield (dotted key, plain value) of every leaf, those of lists included."""
    if isinstance(node, DictConfig) and not node._is_none():
        for key in node:
            yield from leaves(node._get_node(key), f"{where}.{key}" if where else str(key))
    elif isinstance(node, ListConfig) and len(node):
        for index in range(len(node)):
            yield from leaves(node._get_node(index), f"{where}[{index}]")
    else:
        yield where, [] if isinstance(node, ListConfig) else None if node is None else node._value()


def kind_of(value: Any) -> type:
    return type(value) if type(value) in (int, float, bool, list) or value is None else str


def unnamed(base: DictConfig, wrong: dict[type, Any]) -> set[str]:
    """Return the leaves that the check does not name when all of them have their wrong value."""
    cfg = copy.deepcopy(base)
    OmegaConf.set_struct(cfg, False)
    changed = set()
    for where, value in leaves(base):
        interpolated = isinstance(value, str) and "${" in value
        if kind_of(value) in wrong and not interpolated and not where.endswith("_target_"):
            OmegaConf.update(cfg, where, wrong[kind_of(value)], merge=False)
            changed.add(where)
    named = {message.partition(": ")[0] for message in problems(cfg)}
    return {where for where in changed if not any(_covers(key, where) for key in named)}


def _covers(key: str, where: str) -> bool:
    return where == key or where.startswith((f"{key}.", f"{key}[")) or key.startswith(f"{where}.")


def _may_be(where: str) -> bool:
    last = where.rpartition(".")[2].partition("[")[0]
    return where.startswith(BOUND_BY_CONSTRUCTOR) or last in MAY_BE_NEGATIVE


@pytest.fixture(scope="module", params=METHODS)
def base(request) -> DictConfig:
    return compose([f"method={request.param}"])


@pytest.mark.fault("F15")
@pytest.mark.parametrize("sort", WRONG)
def test_every_leaf_refuses(base, sort):
    missed = unnamed(base, WRONG[sort])
    if sort == "out of range":
        missed = {where for where in missed if not _may_be(where)}
    assert not missed


@pytest.mark.fault("F15")
def test_every_misspelt_neighbour_is_refused_with_the_right_name(base):
    cfg = copy.deepcopy(base)
    OmegaConf.set_struct(cfg, False)
    misspelt = {}
    for where, value in leaves(base):
        group, _, key = where.rpartition(".")
        node = OmegaConf.select(cfg, group) if group else cfg
        taken = isinstance(node, DictConfig) and "[" not in where and not key.startswith("_")
        if taken and group not in ("dataset.views", "model"):
            misspelt[f"{where}x" if not group else f"{group}.{key}x"] = key
            with open_dict(node):
                node[f"{key}x"] = value
    found = {message.partition(": ")[0]: message for message in problems(cfg)}
    assert misspelt.keys() <= found.keys()
    unhelped = [key for key, right in misspelt.items() if f"'{right}'" not in found[key] and right not in found[key]]
    assert not unhelped


@pytest.mark.fault("F15", control=True)
def test_composing_alone_lets_everything_through():
    cfg = compose(["seed=abc", "optimizer.lr=-1", "trainer.epochs=0", "method.guess.temperature=0"])
    assert cfg.optimizer.lr == -1
    assert len(problems(cfg)) == 4


@pytest.mark.slow
@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    "override",
    [
        "seed=abc", "optimizer.lr=-1", "optimizer.lr=fast", "trainer.epochs=0", "trainer.batch_size=0",
        "method.guess.temperature=0", "noise.model.rate=1.5", "seed=1e400", "trainer.device=gpu", "method.loss.tau=nan",
    ],
)  # fmt: skip
def test_one_message_and_no_torch(override, tmp_path):
    done = program([override], tmp_path)
    key = override.partition("=")[0]
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"train: {key}: expected")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
