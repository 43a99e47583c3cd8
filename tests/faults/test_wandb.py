"""F18: W&B unavailable in seven ways. The run ends well, its local files are complete, and W&B gets it whole later."""

import contextlib
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.harness import kill_group, start, train
from tests.faults.fake_wandb import FakeWandb
from tests.faults.processes import descendants

ROOT = Path(__file__).parents[2]
RUN = ["method=erm", "trainer.epochs=12", "trainer.log_every=5", "tracker.wandb.init_timeout=2", "dataset.subset=300"]
KEY = {"WANDB_API_KEY": "k" * 40}
SOON = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "3"}
"""Seconds between uploads: with the usual 15 a run on a fast machine is over before the first one."""
LONGER = {"core killed": ["trainer.epochs=1000"]}
BAD_SERVERS = {"error 500": (200, 500), "down": (503, 503), "hangs": (None, None), "hangs later": (200, None)}
WAYS = ["offline", "no network", "no key", "wrong key", *BAD_SERVERS, "core killed", "folder unwritable"]

spec = importlib.util.spec_from_file_location("sync_script", ROOT / "scripts" / "sync.py")
sync_script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sync_script)


@contextlib.contextmanager
def broken(way: str, folder: Path, home: Path):
    """Break W&B in one way; give the environment, and the server where there is one."""
    nobody = {"WANDB_API_KEY": "", "WANDB_MODE": "", "HOME": str(home), "WANDB_CONFIG_DIR": str(home)}
    if way == "no network":
        yield {**nobody, **KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}, None
        return
    if way == "folder unwritable":
        folder.mkdir(parents=True)
        (folder / "wandb").write_text("in the way")
    get, post = BAD_SERVERS.get(way, (200, 403 if way == "wrong key" else 200))
    with FakeWandb(get=get, post=post) as server:
        environment = {**nobody, **KEY, "WANDB_BASE_URL": server.url}
        if way == "offline":
            environment["WANDB_MODE"] = "offline"
        if way == "no key":
            environment["WANDB_API_KEY"] = ""
        yield environment, server


def run(way: str, folder: Path, environment: dict[str, str], server: FakeWandb | None) -> tuple[int | None, str]:
    """Do the run that W&B is broken for; return its exit code and what it printed."""
    output = folder.parents[1] / "output.txt"
    arguments = [
        *RUN,
        *LONGER.get(way, []),
        "tracker=default",
        f"paths.output_dir={folder.parent}",
        f"paths.run_dir={folder}",
    ]
    process = start(arguments, output, {**environment, **SOON})
    if way == "core killed":
        wait_for_history(server)
        cores = [pid for pid, command in descendants(process.pid).items() if "wandb-core" in command]
        assert cores
        for pid in cores:
            os.kill(pid, signal.SIGKILL)
    process.join(120)
    if process.is_alive():
        kill_group(process, signal.SIGKILL)
    return process.exitcode, output.read_text()


def wait_for_history(server: FakeWandb) -> None:
    """Wait until the server has rows of a run."""
    deadline = time.monotonic() + 60
    while not any(one.history for one in server.runs.values()) and time.monotonic() < deadline:
        time.sleep(0.02)


def steps(folder: Path) -> list[int]:
    files = (folder / "metrics.jsonl", folder / "timing.jsonl")
    return sorted({json.loads(line)["step"] for file in files for line in file.read_text().splitlines()})


def sync(outputs: Path, server: FakeWandb) -> str:
    """Sync as a user does, and return what was said."""
    command = [sys.executable, str(ROOT / "scripts" / "sync.py"), str(outputs)]
    environment = {**os.environ, **server.environment()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_one_whole_run(server: FakeWandb, folder: Path) -> None:
    (one,) = server.runs.values()
    assert [row["_step"] for row in one.rows()] == steps(folder)
    assert one.complete
    assert "last/test/accuracy" in one.summary


@pytest.fixture(scope="module")
def without_wandb(tmp_path_factory):
    """What the same runs write to metrics.jsonl without W&B."""

    @functools.cache
    def metrics(more: tuple[str, ...]) -> bytes:
        folder = tmp_path_factory.mktemp("plain")
        paths = [f"paths.output_dir={folder}", f"paths.run_dir={folder}/local/seed0"]
        assert train([*RUN, *more, *paths], folder / "output.txt") == 0
        return (folder / "local" / "seed0" / "metrics.jsonl").read_bytes()

    return metrics


@pytest.mark.slow
@pytest.mark.fault("F18")
@pytest.mark.parametrize("way", WAYS)
def test_the_run_ends_well_is_whole_here_and_later_there(way, tmp_path, without_wandb):
    folder = tmp_path / "broken" / "seed0"
    with broken(way, folder, tmp_path) as (environment, server):
        code, said = run(way, folder, environment, server)
        assert code == 0, said
        links = ("Upload to W&B", "W&B: http")
        warnings = [line for line in said.splitlines() if "W&B" in line and not line.startswith(links)]
        if way == "core killed":  # another one goes on in its place
            assert not warnings
            assert_one_whole_run(server, folder)
        else:
            assert len(warnings) == 1, said
            assert "sync" in warnings[0] or "cannot be written" in warnings[0], warnings
        assert (folder / "metrics.jsonl").read_bytes() == without_wandb(tuple(LONGER.get(way, [])))
        if way == "folder unwritable":
            (folder / "wandb").unlink()
        with contextlib.ExitStack() as stack:
            healthy = server if way == "core killed" else stack.enter_context(FakeWandb())
            sync(folder.parent, healthy)
            assert_one_whole_run(healthy, folder)
            assert "complete before, nothing to send" in sync(folder.parent, healthy)
            assert_one_whole_run(healthy, folder)


@pytest.mark.slow
@pytest.mark.fault("F4", "F18")
@pytest.mark.parametrize(
    ("number", "forgetful"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGUSR1, False), (signal.SIGKILL, True)],
)
def test_a_signal_to_every_process_of_a_job_leaves_no_gap_and_no_double(number, forgetful, tmp_path):
    """As SLURM signals them: W&B's own process dies of it, with what it has not sent."""
    folder, output = tmp_path / "signalled" / "seed0", tmp_path / "output.txt"
    arguments = [*RUN, "trainer.epochs=1000", "tracker=default", "trainer.checkpoint.every_steps=50"]
    paths = [f"paths.output_dir={folder.parent}", f"paths.run_dir={folder}"]
    with FakeWandb(forgetful=forgetful) as server:
        process = start([*arguments, *paths], output, {**server.environment(), **SOON})
        wait_for_history(server)
        time.sleep(1)
        for pid in [process.pid, *descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if number == signal.SIGKILL else 85), output.read_text()
        (one,) = server.runs.values()
        before = len(one.history)
        assert train([*arguments, *paths], output, server.environment()) == 0
        assert before < len(one.history), "the run was still going on"
        assert_one_whole_run(server, folder)
        assert "warning" not in output.read_text()


@pytest.mark.slow
@pytest.mark.fault("F18", control=True)
@pytest.mark.parametrize("way", ["no network", "no key"])
def test_logging_from_the_training_loop_does_not_survive(way, tmp_path):
    with broken(way, tmp_path / "x", tmp_path) as (environment, _):
        command = [sys.executable, "-m", "tests.faults.careless_wandb"]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=120)
        assert done.returncode != 0


@pytest.mark.slow
@pytest.mark.fault("F18")
def test_a_run_is_synced_while_it_goes_on_and_once_more_when_it_is_done(tmp_path):
    """As from the login node while compute nodes without network are at work."""
    folder = tmp_path / "going" / "seed0"
    arguments = [*RUN, f"paths.output_dir={folder.parent}", f"paths.run_dir={folder}"]
    assert train([*arguments, "trainer.epochs=12"], tmp_path / "output.txt") == 0
    whole = {name: (folder / name).read_text() for name in ("metrics.jsonl", "results.json")}
    (folder / "results.json").unlink()
    lines = whole["metrics.jsonl"].splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:9])
    with FakeWandb() as server:
        assert "not finished, sync again later" in sync(folder.parent, server)
        (one,) = server.runs.values()
        before = [row["_step"] for row in one.rows()]
        assert before == steps_of(lines[: len(lines) // 2])[:-1], "the last step may be incomplete"
        for name, text in whole.items():
            (folder / name).write_text(text)
        (folder / "wandb" / "sent.json").unlink()  # the server's word counts
        sync(folder.parent, server)
        assert_one_whole_run(server, folder)


def steps_of(lines: list[str]) -> list[int]:
    return sorted({json.loads(line)["step"] for line in lines})


@pytest.mark.fault("F18", control=True)
def test_a_replay_that_does_not_ask_the_server_doubles_rows():
    """What the check of one whole run is for: the fake server keeps what it is sent twice."""
    server = FakeWandb()
    try:
        for offset in (0, 2):  # a client that starts again from the first row
            server.stream(
                "one", {"files": {"wandb-history.jsonl": {"offset": offset, "content": ['{"_step": 0}'] * 2}}}
            )
        assert [row["_step"] for row in server.runs["one"].rows()] == [0, 0, 0, 0]
    finally:
        server.server_close()


def test_what_cannot_be_synced_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert sync_script.main([str(tmp_path)]) == 2
    assert "holds no run with metrics" in capsys.readouterr().err
    (tmp_path / "seed0").mkdir()
    for name in ("metrics.jsonl", "config.yaml"):
        (tmp_path / "seed0" / name).touch()
    assert sync_script.main([str(tmp_path)]) == 4
    assert "sync from a machine with network" in capsys.readouterr().err
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sync_script.main([str(tmp_path)]) == 2
    assert "wandb login" in capsys.readouterr().err
