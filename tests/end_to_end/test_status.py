"""`robustlab status` after runs that end in every way there is."""

import signal

import pytest

from robustlab.commands.status import main as status
from tests.end_to_end.harness import interrupt, start, train

RUN = ("method=erm", "dataset.subset=128", "trainer.batch_size=16", "trainer.epochs=2", "trainer.log_every=1")


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    monkeypatch.setattr("robustlab.launch.standing.queue", lambda: None)


def shown(folder, capsys) -> tuple[int, str]:
    """The exit code of `status`, and its line of the one run below a folder, or the state where it has none."""
    code = status([str(folder)])
    lines = capsys.readouterr().out.splitlines()
    return code, lines[-1] if "seed0" in lines[-1] else lines[1].split()[0]


def test_done_and_diverged(tmp_path, capsys):
    assert train([*RUN, f"paths.output_dir={tmp_path / 'good'}"], tmp_path / "log") == 0
    assert shown(tmp_path / "good", capsys) == (0, "done")
    bad = tmp_path / "bad"
    assert train([*RUN, "optimizer.lr=1e30", f"paths.output_dir={bad}"], tmp_path / "log") == 5
    code, line = shown(bad, capsys)
    assert code == 1
    assert line.startswith("failed ")
    assert "exit code 5: " in line
    assert " in global step " in line or " by global step " in line


def bug() -> None:
    """Let the first evaluation raise, in the process of the run."""
    from robustlab.engine import loop

    def broken(*arguments, **options):
        raise KeyError("planted")

    loop.evaluate_splits = broken


def test_a_bug(tmp_path, capsys):
    command = [*RUN, f"paths.output_dir={tmp_path / 'out'}"]
    process = start(command, tmp_path / "log", before=bug)
    process.join(120)
    assert process.exitcode not in (0, None)
    code, line = shown(tmp_path / "out", capsys)
    assert code == 1
    assert "exit code 1: KeyError: 'planted'" in line
    assert train(command, tmp_path / "log") == 0
    assert shown(tmp_path / "out", capsys) == (0, "done")
    assert not list((tmp_path / "out").glob("*/*/exit.json"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGTERM, (0, "stopped", "stopped by SIGTERM, at epoch ")),
        (signal.SIGKILL, (1, "killed", "vanished without a message: killed, or lost power, at epoch ")),
    ],
)
def test_a_signal(tmp_path, capsys, number, expected):
    process = start([*RUN, "trainer.epochs=100000", f"paths.output_dir={tmp_path / 'out'}"], tmp_path / "log")
    running = []

    def while_it_runs():
        for path in (tmp_path / "out").glob("*/*/metrics.jsonl"):
            if path.read_bytes().count(b"\n") >= 2:
                running.append(shown(tmp_path / "out", capsys))
        return bool(running)

    interrupt(process, number, while_it_runs)
    assert running[0][0] == 0
    assert running[0][1].startswith("running ")
    code, line = shown(tmp_path / "out", capsys)
    assert (code, line.split()[0]) == expected[:2]
    assert expected[2] in line
