"""Jobs on a real cluster, and runs in them that are disturbed at a certain step."""

import getpass
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from robustlab.launch.slurm_queue import QueuedJob, queue
from robustlab.launch.submission import Submission, read_submissions

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ["trainer.threads=1", "trainer.device=cpu", "tracker=local", "compare=null", "dataset.subset=400"]
"""As of the runs in processes here: one thread, since the number of threads changes the last bits."""
JOB = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=20"]
PATIENCE = 240
"""Seconds to wait for one thing on a busy machine."""
POLL = 0.5


def call(*command: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must end within two minutes; it does not have to succeed."""
    everything = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path(), **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=everything, cwd=cwd)


def path() -> str:
    """The search path with this environment's `train` first."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def submit(outputs: Path, *overrides: str) -> Submission:
    """Run scripts/submit.py and return the new sweep's record."""
    arguments = [*SMALL, *JOB, f"paths.output_dir={outputs}", *overrides]
    done = call(sys.executable, str(REPOSITORY / "scripts" / "submit.py"), *arguments)
    assert done.returncode == 0, done.stderr
    return read_submissions(outputs)[-1]


def sbatch(template: Path, *arguments: str, options: tuple[str, ...] = (), cwd: Path) -> str:
    """Submit a template with fewer resources than it asks for; return the job's id."""
    small = ["--parsable", "--cpus-per-task=1", "--mem=0", "--time=20"]
    done = call("sbatch", *small, *options, str(template), *SMALL, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def jobs_now() -> dict[str, QueuedJob]:
    """The queue, which must answer."""
    jobs = queue()
    assert jobs is not None
    return jobs


def wait_until(condition: Callable[[], object], what: str, logs: Path) -> None:
    """Wait until a condition holds; fail with what was waited for, the queue, and all logs below a folder."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            printed = "\n".join(
                f"--- {log}\n{log.read_text(errors='replace')[-1500:]}"
                for log in sorted(logs.rglob("*"))
                if log.suffix in (".log", ".out", ".err")
            )
            raise AssertionError(f"not within {PATIENCE} s: {what}\n{jobs_now()}\n{printed}")
        time.sleep(POLL)


def steps(run_dir: Path) -> int:
    """The rows that a run has written so far."""
    try:
        return (run_dir / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def jobs_of(folder: Path) -> list[str]:
    """Return the ids of the jobs that run in a folder, or run a script in it: those of one test, and no other's."""
    lines = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i\t%Z/\t%o"]
    done = subprocess.run(lines, capture_output=True, text=True, check=True)
    return [line.partition("\t")[0] for line in done.stdout.splitlines() if f"{folder}/" in line]


@contextmanager
def jobs_cancelled(folder: Path) -> Iterator[None]:
    """Leave no job of a folder behind, however the block ends. Other tests may use the cluster at the same time."""
    try:
        yield
    finally:
        if left := jobs_of(folder):
            subprocess.run(["scancel", *left], check=False)
