"""Overlays: every method has its own values for the setting of an experiment, or the run says that it has none."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from robustlab.config.check import problems
from robustlab.config.compose import compose, session
from robustlab.config.hydra_session import all_options, load, without_hydra
from robustlab.config.overlays import lineage, value_notes
from robustlab.config.run_names import run_name
from robustlab.core.errors import ConfigError
from robustlab.train import main
from tests.config.published import ASYMMETRIC_CIFAR10, FAMILIES, SAYS, TRAINING, VALUES, setting_of

EXPERIMENTS = [name for name in all_options("experiment") if "/sweep/" not in name]
PAIRS = [(name, method) for name in EXPERIMENTS for method in FAMILIES[name.partition("/")[0]]]
QUICK = [
    ("crosssplit/cifar100_sym50", "crosssplit"), ("crosssplit/cifar100_sym50", "elr"),
    ("crosssplit/cifar100_asym40", "crosssplit_official"), ("crosssplit/cifar10_asym40", "elr"),
    ("crosssplit/tiny_imagenet_sym20", "crosssplit"), ("crosssplit/tiny_imagenet_sym50", "elr"),
    ("cobalt/waterbirds", "jtt"), ("cobalt/waterbirds_erm", "dfr/train"), ("cobalt/celeba_jtt", "spectral_decoupling"),
    ("cobalt/digits_bg", "cobalt_image"), ("demp/imagenet_resnet50", "dense"), ("demp/digits", "slimming"),
]  # fmt: skip

Composer = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def composed() -> Iterator[Composer]:
    with session() as hydra:

        def compose_one(*overrides: str) -> DictConfig:
            cfg = without_hydra(load(hydra, overrides))
            for key in OmegaConf.missing_keys(cfg):
                OmegaConf.update(cfg, key, "given")
            return cfg

        yield compose_one


def differences(cfg: DictConfig, wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    found = {key: OmegaConf.select(cfg, key) for key in wanted}
    return {key: (found[key], value) for key, value in wanted.items() if found[key] != value}


def check_pair(composed: Composer, experiment: str, method: str) -> None:
    cfg, setting = composed(f"experiment={experiment}", f"method={method}"), setting_of(experiment)
    values = VALUES.get(setting, {}).get(method, {})
    if (setting, cfg.noise.name) == ("cifar10", "asymmetric_cifar10"):
        values = ASYMMETRIC_CIFAR10.get(method, values)
    assert (cfg.setting or {"name": "none"})["name"] == setting
    assert differences(cfg, TRAINING[setting] | values) == {}
    assert problems(cfg) == []
    human = method == "elr" and cfg.noise.name in ("cifar10n", "cifar100n")  # its paper has no values for human labels
    assert len(value_notes(cfg)) == (human or method in SAYS.get(setting, ()))


@pytest.mark.parametrize(("experiment", "method"), QUICK)
def test_values_of_a_method_in_a_setting(composed, experiment, method):
    check_pair(composed, experiment, method)


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "method"), PAIRS)
def test_every_experiment_with_every_method_that_fits(composed, experiment, method):
    check_pair(composed, experiment, method)


def test_the_table_names_every_experiment_and_method():
    assert {setting_of(name) for name in EXPERIMENTS} <= TRAINING.keys()
    assert {method for family in FAMILIES.values() for method in family} == set(all_options("method"))
    assert set(TRAINING) == set(all_options("setting"))


@pytest.mark.parametrize("overlay", all_options("overlay"))
def test_each_overlay_is_one_that_a_setting_and_a_method_ask_for(composed, overlay):
    setting, _, rest = overlay.partition("/")
    methods, noises = all_options("method"), all_options("noise")
    method, _, noise = (rest, "", "none") if rest in methods else rest.rpartition("/")
    assert setting in [*all_options("setting"), "any"]
    assert method in methods
    assert noise in noises
    cfg = composed(f"setting={setting if setting != 'any' else 'none'}", f"method={method}", f"noise={noise}")
    changed = OmegaConf.to_container(composed("setting=none", f"method={method}", f"noise={noise}"))
    assert setting == "any" or OmegaConf.to_container(cfg) != changed


def test_every_experiment_of_a_folder_gives_a_method_the_same_values(composed):
    for data, method in product(("waterbirds", "celeba"), ("erm", "jtt", "groupdro", "dfr")):
        names = [name for name in EXPERIMENTS if name.startswith(f"cobalt/{data}")]
        assert len({run_name(composed(f"experiment={name}", f"method={method}")) for name in names}) == 1


def test_the_order_is_defaults_experiment_overlay_command_line(composed):
    experiment = "experiment=cobalt/waterbirds"
    assert composed("method=dfr").trainer.batch_size == 64
    assert composed(experiment, "method=erm").trainer.batch_size == 128
    assert composed(experiment, "method=dfr").trainer.batch_size == 32
    assert composed(experiment, "method=dfr", "trainer.batch_size=8").trainer.batch_size == 8
    assert composed("experiment=cobalt/celeba", "method=spectral_decoupling").optimizer._target_ == "torch.optim.Adam"
    chosen = composed("experiment=cobalt/celeba", "method=spectral_decoupling", "optimizer=adamw").optimizer
    assert (chosen._target_, chosen.lr) == ("torch.optim.AdamW", 1e-5)
    for without in ("setting=none", "~setting"):
        assert composed("experiment=crosssplit/cifar100_sym50", "method=elr", without).method.strength == 3


def test_the_noise_that_is_chosen_decides(composed):
    for overrides, strength in (
        (["experiment=crosssplit/cifar10_sym50", "noise=asymmetric_cifar10"], 1),
        (["experiment=crosssplit/cifar10_asym40", "noise=symmetric"], 3),
        (["experiment=crosssplit/cifar100_sym50", "noise=asymmetric_cifar100"], 7),
    ):
        assert composed(*overrides, "method=elr").method.strength == strength


def test_a_setting_and_its_values_are_one_run(composed):
    named = composed("setting=cifar100", "method=elr", "dataset=cifar100")
    given = composed("method=elr", "method.strength=7", "method.momentum=0.9", "dataset=cifar100")
    assert run_name(named) == run_name(given)


def test_a_method_of_ones_own_takes_the_values_of_the_one_it_builds_on(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text("defaults: [elr, _self_]\nname: mine\n")
    cfg = compose(["experiment=crosssplit/cifar100_sym50", "method=mine"], config_dirs=[tmp_path])
    assert (cfg.method.name, cfg.method.strength) == ("mine", 7)
    (tmp_path / "overlay/cifar100").mkdir(parents=True)
    (tmp_path / "overlay/cifar100/mine.yaml").write_text("# @package _global_\nmethod: {strength: 5.0}\n")
    for dirs, search in (([tmp_path], []), ([], [f"hydra.searchpath=[file://{tmp_path}]"])):
        cfg = compose(["experiment=crosssplit/cifar100_sym50", "method=mine", *search], config_dirs=dirs)
        assert (cfg.method.strength, cfg.method.momentum) == (5, 0.7)


def test_what_a_method_builds_on():
    assert lineage("snap/refreshed") == ("snap/refreshed", "snap")
    assert lineage("cobalt_image") == ("cobalt_image", "cobalt")
    assert lineage("erm") == ("erm",)


@pytest.mark.parametrize(
    ("overrides", "notes"),
    [
        (["method=erm"], []),
        (["method=elr", "dataset=cifar10", "noise=symmetric"], []),
        (["experiment=crosssplit/cifar100_sym50", "method=elr"], []),
        (
            ["experiment=crosssplit/tiny_imagenet_sym20", "method=elr"],
            ["elr: no values of its own for tiny_imagenet with symmetric noise, "
             "using those for cifar10 with symmetric noise"],
        ),
        (
            ["method=elr", "dataset=cifar100"],
            ["elr: no values of its own for cifar100, using those for cifar10 with symmetric noise "
             "(see setting=cifar100)"],
        ),
        (["method=demp", "dataset=svhn"], ["demp: no values of its own for svhn, using its defaults"]),
        (
            ["experiment=crosssplit/cifar100_sym50", "dataset=svhn", "method=erm"],
            ["setting=cifar100: its values are for cifar100, not for svhn (setting=none drops them)"],
        ),
    ],
)  # fmt: skip
def test_what_a_run_says_of_its_values(composed, overrides, notes):
    assert value_notes(composed(*overrides)) == notes


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        (["method=crosssplit/cifar100"], "did you mean 'crosssplit' with setting=cifar100?"),
        (["method=demp/smoke"], "did you mean 'demp' with setting=digits_smoke?"),
        (["method=demp/nothing"], "did you mean 'demp'? Its values for a data set come with setting=..."),
        (["method=cobalt/paper_literal_celeba"], "did you mean 'cobalt/paper_literal'?"),
        (["setting=cifar1000"], "there is no setting 'cifar1000'; did you mean 'cifar100'?"),
    ],
)
def test_names_that_are_not_there(overrides, hint):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert hint in str(caught.value)


def test_every_view_of_the_command_line_agrees(capsys):
    command = ["experiment=crosssplit/cifar10_asym40", "method=elr"]
    assert main(["--cfg", "job", "--package", "method", *command]) == 0
    assert "strength: 1.0" in capsys.readouterr().out
    assert main(["--info", "defaults", *command]) == 0
    assert "overlay/cifar10/elr/asymmetric_cifar10" in capsys.readouterr().out
    assert main(["--help"]) == 0
    groups = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert "setting" in groups
    assert not [name for name in groups if name.startswith("overlay")], "nobody chooses one by hand"
