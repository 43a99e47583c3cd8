"""`hydra.launcher`: checked like the rest of the settings; what submitit is told."""

import pytest
from omegaconf import OmegaConf

from robustlab.config.compose import session
from robustlab.config.hydra_session import load
from robustlab.core.errors import ClusterError, ConfigError
from robustlab.launch.slurm_settings import gpus_per_job, need_slurm, slurm_settings, submitit_parameters


def launcher(*overrides):
    with session() as hydra:
        return load(hydra, list(overrides)).hydra.launcher


@pytest.mark.parametrize("name", ["slurm", "slurm_mila", "slurm_alliance"])
def test_the_shipped_files_are_right_and_requeue(name):
    settings = slurm_settings(launcher(f"hydra/launcher={name}", "hydra.launcher.account=def-someone"))
    assert settings["max_num_timeout"] >= 3
    parameters = submitit_parameters(settings)
    assert parameters["slurm_account"] == "def-someone"
    assert parameters["slurm_additional_parameters"] == {"requeue": True}
    assert {"timeout_min", "cpus_per_task", "slurm_signal_delay_s", "slurm_array_parallelism"} <= parameters.keys()
    assert not {"pack", "slurm_pack", "slurm__target_", "slurm_max_num_timeout"} & parameters.keys()
    assert None not in parameters.values()


def test_an_account_that_is_needed_is_asked_for(tmp_path):
    from robustlab.launch.submit_command import submit_command

    with session() as hydra, pytest.raises(ConfigError, match="account"):
        submit_command(hydra, ["hydra/launcher=slurm_alliance", f"paths.output_dir={tmp_path}"], dry_run=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("timeout_min", 0, "hydra.launcher.timeout_min: "),
        ("pack", "two", "hydra.launcher.pack: "),
        ("partitoin", "long", "did you mean 'partition'"),
        ("nodes", 2, "slurm/multi_node.sh"),
    ],
)
def test_wrong_settings_are_refused_with_what_to_do(key, value, message):
    settings = OmegaConf.to_container(launcher("hydra/launcher=slurm"))
    assert isinstance(settings, dict)
    with pytest.raises(ConfigError, match=message):
        slurm_settings(OmegaConf.create({**settings, key: value}))


def test_without_the_extra_it_says_how_to_install_it(monkeypatch):
    settings = launcher("hydra/launcher=slurm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="uv sync --extra cluster") as caught:
        slurm_settings(settings)
    assert caught.value.exit_code == 2


def test_without_slurm_it_says_where_to_submit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="login node") as caught:
        need_slurm()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("settings", "gpus"),
    [
        ({}, 0),
        ({"gpus_per_node": 4}, 4),
        ({"gpus_per_node": "a100:2"}, 2),
        ({"gres": "gpu:1"}, 1),
        ({"gres": "lic:9"}, 0),
    ],
)
def test_gpus_of_a_job(settings, gpus):
    assert gpus_per_job(settings) == gpus
