"""Noise is never inherited: a command line that chooses what to train has clean labels unless it names noise."""

from itertools import product

import pytest

from robustlab.config.compose import compose, session
from robustlab.config.default_experiment import DEFAULT_EXPERIMENT, with_default_experiment
from robustlab.config.hydra_session import all_options, load, without_hydra
from robustlab.config.run_names import run_name
from robustlab.train import main

NAMED = f"experiment={DEFAULT_EXPERIMENT}"


@pytest.mark.parametrize(
    "overrides",
    [[], ["seed=3"], ["trainer.epochs=3", "optimizer=adam"], ["method.warmup.epochs=3"], ["noise.model.rate=0.2"]],
)
def test_nothing_chosen_is_the_default_experiment_and_both_are_one_run(overrides):
    implicit, explicit = compose(overrides), compose([NAMED, *overrides])
    assert implicit == explicit
    assert run_name(implicit) == run_name(explicit)
    assert implicit.noise.name == "symmetric"


def test_the_default_experiment_is_a_noise_model_added_to_the_plain_defaults():
    assert run_name(compose([])) == run_name(compose(["noise=symmetric"]))
    assert run_name(compose(["noise=none"])) != run_name(compose([]))


@pytest.mark.parametrize(
    "chosen",
    [
        "method=crosssplit", "dataset=digits", "model=small_cnn", "noise=none", "features=frozen", "setting=digits",
        "experiment=demp/digits", "+experiment=demp/digits", "method=erm,elr", "dataset=[digits]", "method@x=erm",
        "+hydra.sweeper.params={method: 'erm,elr'}", "hydra.sweeper.params.method=choice(erm,elr)",
    ],
)  # fmt: skip
def test_any_choice_of_what_to_train_leaves_it_out(chosen):
    assert with_default_experiment(["seed=1", chosen]) == ["seed=1", chosen]


@pytest.mark.parametrize(
    "override",
    [
        "seed=0,1", "tags=[method]", "name=model", "optimizer=adam", "trainer=gpu", "tracker=local", "scheduler=none",
        "compare=elr", "method.name=mine", "model.widths=[8]", "hydra.sweeper.params={seed: '0,1'}",
        "hydra.sweeper.params.method.warmup.epochs=choice(3,5)", "paths.output_dir=experiment=x",
    ],
)  # fmt: skip
def test_values_and_ways_to_train_are_no_such_choice(override):
    assert with_default_experiment([override]) == [override, NAMED]
    assert with_default_experiment([override, NAMED]) == [override, NAMED], "once is enough"


@pytest.fixture(scope="module")
def hydra():
    with session() as opened:
        yield opened


@pytest.mark.parametrize("group", ["dataset", "model", "method", "features"])
def test_every_choice_has_clean_labels(hydra, group):
    for option in all_options(group):
        cfg = load(hydra, with_default_experiment([f"{group}={option}"]))
        assert (cfg.noise.name, cfg.noise.model) == ("none", None), option


@pytest.mark.slow
def test_every_data_set_with_every_method_has_clean_labels(hydra):
    for dataset, method in product(all_options("dataset"), all_options("method")):
        cfg = load(hydra, with_default_experiment([f"dataset={dataset}", f"method={method}"]))
        assert cfg.noise.model is None, (dataset, method)


def test_noise_that_is_named_stays():
    for overrides in (["noise=symmetric"], ["experiment=crosssplit/cifar10_sym50"], [NAMED]):
        assert compose([*overrides, "method=erm", "model=mlp"]).noise.name == "symmetric"


def test_every_view_of_the_command_line_agrees(capsys):
    for arguments, noise in (([], "symmetric"), (["method=erm"], "none"), ([NAMED, "method=erm"], "symmetric")):
        assert main(["--cfg", "job", *arguments]) == 0
        assert f"noise:\n  name: {noise}\n" in capsys.readouterr().out
        assert main(["--info", "defaults", *arguments]) == 0
        assert f"noise/{noise}" in capsys.readouterr().out


def test_a_configuration_of_ones_own_has_no_default_experiment(tmp_path, capsys):
    (tmp_path / "train.yaml").write_text("words: 3\n")
    (tmp_path / "other.yaml").write_text("words: 4\n")
    assert main(["--config-path", str(tmp_path), "--cfg", "job"]) == 0
    assert main(["--config-dir", str(tmp_path), "--config-name", "other", "--cfg", "job"]) == 0
    assert capsys.readouterr().out == "words: 3\nwords: 4\n"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=erm", "noise.model.rate=0.2"], "noise.model: null with noise=none, so noise.model.rate cannot be"),
        (["scheduler=none", "scheduler.schedule.T_max=3"], "so scheduler.schedule.T_max cannot be set"),
    ],
)
def test_values_of_what_is_not_there(overrides, message, capsys):
    assert main(overrides) == 2
    assert message in capsys.readouterr().err


def test_the_composed_default_is_what_the_settings_say(hydra):
    cfg = without_hydra(load(hydra, with_default_experiment([])))
    assert (cfg.dataset.name, cfg.method.name, cfg.model.name) == ("digits", "crosssplit", "small_cnn")
    assert (cfg.noise.model.rate, cfg.noise.model.inclusive, cfg.compare) == (0.5, True, "erm")
