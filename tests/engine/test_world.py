"""Rank and size of a process, from the variables of torchrun and srun."""

import pytest

from robustlab.core.errors import ConfigError
from robustlab.core.runtime import available_cpus
from robustlab.core.world import World

TASK = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "7",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "3(x2),1",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}


def test_no_launcher_is_one_process():
    assert World.from_environment({}) == World(rank=0, size=1, local_rank=0, local_size=1, cpus=None)


def test_torchrun_comes_before_slurm():
    values = {**TASK, "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert World.from_environment(values) == World(rank=3, size=4, local_rank=1, local_size=2)
    assert not World.from_environment(values).is_main


def test_the_tasks_of_a_step_that_have_a_meeting_place_are_one_run():
    assert World.from_environment(TASK) == World(rank=4, size=7, local_rank=1, local_size=3)
    assert World.from_environment({**TASK, "SLURM_NODEID": "2", "SLURM_CPUS_PER_TASK": "8"}) == World(
        rank=4, size=7, local_rank=1, local_size=1, cpus=8
    )


def without(*names):
    return {name: value for name, value in TASK.items() if name not in names}


def test_tasks_without_a_meeting_place_are_runs_of_their_own():
    assert World.from_environment(without("MASTER_ADDR", "MASTER_PORT")) == World()


def test_the_script_of_a_job_with_several_tasks_is_no_task_of_a_step():
    assert World.from_environment(without("SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE")) == World()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (without("MASTER_PORT"), "MASTER_PORT is not"),
        (without("SLURM_PROCID"), "SLURM_PROCID= is not a number"),
        ({**TASK, "SLURM_STEP_TASKS_PER_NODE": "many"}, "SLURM_STEP_TASKS_PER_NODE=many"),
        ({"WORLD_SIZE": "2"}, "RANK="),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE=two"),
    ],
)
def test_half_of_what_is_needed_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        World.from_environment(values)


def test_processes_of_a_node_share_its_cpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert available_cpus(World()) == 12
    assert available_cpus(World(size=4, local_size=4)) == 3
    assert available_cpus(World(size=16, local_size=16)) == 1
    assert available_cpus(World(size=4, local_size=4, cpus=5)) == 5
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")  # of the one task that torchrun is
    assert available_cpus(World(size=4, local_size=4)) == 2
