"""The sbatch templates, run for real with fewer resources than they ask for: interrupted, they requeue and go on."""

import subprocess
from pathlib import Path

import pytest

from robustlab.launch.standing import is_done
from tests.end_to_end.harness import assert_same_run, run_folder, train
from tests.slurm.cluster import REPOSITORY, SMALL, jobs_cancelled, jobs_now, sbatch, steps, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEMPLATES = REPOSITORY / "slurm"
COMMAND = ["method=erm", "trainer.epochs=40", "trainer.log_every=1"]
NO_GPU = ("--gres=none",)


@pytest.fixture(autouse=True)
def _no_job_is_left_behind(tmp_path):
    with jobs_cancelled(tmp_path):
        yield


def interrupt(job: str, run_dir: Path, logs: Path) -> None:
    """Send the signal that comes before a time limit, in mid-training."""
    wait_until(lambda: steps(run_dir) > 20, f"{job} trains", logs)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)


def runs(outputs: Path) -> list[Path]:
    return sorted(path.parent for path in outputs.glob("*/seed*/config.yaml"))


def wait_for_runs(outputs: Path, count: int, logs: Path) -> list[Path]:
    wait_until(lambda: len(runs(outputs)) == count, f"{count} runs begin", logs)
    return runs(outputs)


@pytest.mark.fault("F6")
def test_the_single_job_requeues_itself_and_ends_with_the_same_bits(tmp_path):
    outputs = tmp_path / "cluster"
    job = sbatch(TEMPLATES / "single.sh", *COMMAND, f"paths.output_dir={outputs}", options=NO_GPU, cwd=tmp_path)
    (run_dir,) = wait_for_runs(outputs, 1, tmp_path)
    interrupt(job, run_dir, tmp_path)
    wait_until(lambda: job in jobs_now() and jobs_now()[job].restarts == 1, "the requeue", tmp_path)
    wait_until(lambda: is_done(run_dir), "the end", tmp_path)
    assert train([*SMALL, *COMMAND, f"paths.output_dir={tmp_path / 'whole'}"], tmp_path / "whole.txt") == 0
    assert_same_run(run_folder(tmp_path / "whole"), run_dir)


@pytest.mark.fault("F6", control=True)
def test_a_job_that_exits_without_requeueing_is_found(tmp_path):
    """The negative control of the test above: the same template without its last lines."""
    template = tmp_path / "bad.sh"
    text = (TEMPLATES / "single.sh").read_text()
    template.write_text(text.replace('scontrol requeue "$SLURM_JOB_ID"', ":"))
    assert template.read_text() != text
    outputs = tmp_path / "cluster"
    job = sbatch(template, *COMMAND, f"paths.output_dir={outputs}", options=NO_GPU, cwd=tmp_path)
    (run_dir,) = wait_for_runs(outputs, 1, tmp_path)
    interrupt(job, run_dir, tmp_path)
    wait_until(lambda: job not in jobs_now(), "the end of the job", tmp_path)
    assert not is_done(run_dir)


@pytest.mark.fault("F6")
def test_the_last_element_of_the_array_requeues_alone(tmp_path):
    """Its number is that of the whole array, so that requeueing by number would disturb the others."""
    outputs = tmp_path / "cluster"
    long = ["method=erm", "trainer.epochs=100000", "trainer.log_every=1", f"paths.output_dir={outputs}"]
    array = sbatch(TEMPLATES / "array.sh", *long, options=(*NO_GPU, "--array=0-1"), cwd=tmp_path)
    first, second = wait_for_runs(outputs, 2, tmp_path)
    wait_until(lambda: steps(first) > 5, "the first element trains", tmp_path)
    interrupt(f"{array}_1", second, tmp_path)
    last = f"{array}_1"
    wait_until(lambda: last in jobs_now() and jobs_now()[last].restarts == 1, "the requeue", tmp_path)
    assert jobs_now()[f"{array}_0"].restarts == 0
    subprocess.run(["scancel", array], check=True)
    wait_until(lambda: not {last, f"{array}_0"} & set(jobs_now()), "that cancelled jobs do not come back", tmp_path)


def test_two_processes_of_one_run_stop_together_and_go_on(tmp_path):
    outputs = tmp_path / "cluster"
    options = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0")
    arguments = [*COMMAND, "model.norm=group", f"paths.output_dir={outputs}"]
    job = sbatch(TEMPLATES / "multi_node.sh", *arguments, options=options, cwd=tmp_path)
    (run_dir,) = wait_for_runs(outputs, 1, tmp_path)
    interrupt(job, run_dir, tmp_path)
    wait_until(lambda: job in jobs_now() and jobs_now()[job].restarts == 1, "the requeue", tmp_path)
    wait_until(lambda: is_done(run_dir), "the end", tmp_path)
    assert "resuming in" in (tmp_path / f"slurm-{job}.out").read_text()
