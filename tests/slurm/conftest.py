"""A real SLURM cluster for the tests in this folder: `tests/slurm/cluster.sh start` brings one up."""

import shutil
import subprocess

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    if shutil.which("sinfo") is None:
        pytest.skip("there is no sinfo, so no SLURM; start a cluster with tests/slurm/cluster.sh start")
    answered = subprocess.run(["sinfo", "--noheader", "--format", "%t"], capture_output=True, text=True, check=False)
    assert answered.returncode == 0, f"SLURM is installed and does not answer: {answered.stderr}"
