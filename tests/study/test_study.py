"""A study: read, expanded, run point by point, resumed, and shown as a table."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from robustlab.core.console import make_console
from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.engine.git import uncommitted
from robustlab.study.results_file import appending, read_lines
from robustlab.study.runner import Runner
from robustlab.study.study_plan import Point, read_study, resolve
from robustlab.study.study_table import study_table, variants

FAKE = (sys.executable, str(Path(__file__).with_name("fake_train.py")))
ROOT = Path(__file__).parents[2]


def write(folder, text, name="lr"):
    path = folder / "studies" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def runner(folder, text, *, local=(), program=FAKE):
    study = read_study(write(folder, text))
    return Runner(study, folder / "results" / "lr.jsonl", folder / "runs", local, allow_dirty=True, program=program)


def table(rows, *metrics):
    stream = io.StringIO()
    make_console(stream, width=200).print(study_table(rows, metrics or ["test/accuracy"], "last"))
    return stream.getvalue()


def test_base_and_grids_expand_as_a_sweep_does(tmp_path):
    study = read_study(write(tmp_path, "base: method=erm seed=7\npoints: ['optimizer.lr=0.1,0.2 seed=0', model=mlp]"))
    assert [point.command for point in study.points] == [
        "train method=erm optimizer.lr=0.1 seed=0",
        "train method=erm optimizer.lr=0.2 seed=0",
        "train method=erm seed=7 model=mlp",
    ]
    assert [point.seed for point in study.points] == [0, 0, 7]
    assert study.points[0].own == ("optimizer.lr=0.1", "seed=0")


def test_what_a_point_needs_is_filled_with_its_own_values(tmp_path):
    text = """
        needs: {first: method=cobalt method.classify=false seed=@seed}
        points: ['method=cobalt method.artifact=@first/concepts.pt seed=0,1']
    """
    points = read_study(write(tmp_path, text)).points
    assert [point.needs["first"][-1] for point in points] == ["seed=0", "seed=1"]
    assert "@first/concepts.pt" in points[0].command, "a recorded command names no folder of a machine"
    assert resolve(points[0], {"first": "/runs/x"})[1] == "method.artifact=/runs/x/concepts.pt"
    assert points[0].key != Point(points[0].overrides).key, "other needs make another point"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("points: []", "a study needs the list points"),
        ("points: [", "not valid YAML"),
        ("grid: [a]\npoints: [seed=0]", "there is no key grid"),
        ("base: [a]\npoints: [seed=0]", "base must be a str"),
        ("points: [3]", "expected overrides"),
        ("points: [seed]", "'seed' is not an override"),
        ("points: ['seed=\"0']", "No closing quotation"),
        ("points: ['seed=[0']", "seed="),
        ("points: [seed=@x/a]", "@x is not in needs, which has nothing"),
        ("needs: {a: seed=@seed}\npoints: [name=@a]", "needs.a: @seed has no value"),
        ("needs: {a b: seed=1}\npoints: [seed=0]", "a name is one word"),
        ("points: ['seed=0,1', seed=1]", "train seed=1 stands there more than once"),
    ],
)
def test_a_study_that_is_wrong_is_refused_by_name(tmp_path, text, said):
    with pytest.raises(ConfigError, match=r"lr\.yaml") as error:
        read_study(write(tmp_path, text))
    assert said in str(error.value)


def test_points_run_once_and_failures_are_results(tmp_path, capsys):
    text = "base: method=erm\npoints: ['seed=0,1 optimizer.lr=0.01', name=diverges, name=wrong, name=full]"
    first = runner(tmp_path, text)
    assert first.run() == 4, "the largest code of the points that have no line"
    rows = read_lines(first.results)
    assert [row["exit_code"] for row in rows] == [0, 0, 5]
    good, failed = rows[0], rows[2]
    assert good["command"] == "train method=erm seed=0 optimizer.lr=0.01"
    assert good["settings"] == {"optimizer.lr": "0.01"}
    assert (good["seed"], good["seconds"], good["machine"]) == (0, 1.5, "cpu, 3 threads")
    assert good["commit"] == "0123456789ab"
    assert good["metrics"] == {"last": {"epoch": 1, "test/accuracy": 0.91}}
    assert good["final"] == {"diagnostics/beta": 0.333333}, "what belongs to single classes stays in the run folder"
    assert failed["message"] == "train: the loss is NaN at step 3\nlower optimizer.lr"
    assert "metrics" not in failed
    assert str(tmp_path) not in first.results.read_text(), "lines name no folder of a machine"

    capsys.readouterr()
    again = runner(tmp_path, text)
    assert [point.command for point in again.pending()] == ["train method=erm name=wrong", "train method=erm name=full"]
    assert again.run("wrong") == 2
    assert "no such file" in capsys.readouterr().out
    assert read_lines(again.results) == rows
    with pytest.raises(ConfigError, match="--only 'seed=7': no command of lr has this text"):
        again.run("seed=7")


def test_a_run_that_points_need_comes_first_and_once(tmp_path):
    text = """
        base: experiment=cobalt/digits_bg
        needs: {first: method.classify=false seed=@seed}
        points: ['method.artifact=@first/concepts.pt method.sampler.exponent=0,1 seed=0']
    """
    first = runner(tmp_path, text)
    assert first.run() == 0
    rows = read_lines(first.results)
    assert [row["command"].split()[-1] for row in rows] == ["seed=0"] * 3
    assert "needs" not in rows[0]
    assert rows[1]["needs"] == {"first": rows[0]["command"]}

    first.results.write_text("".join(f"{line}\n" for line in first.results.read_text().splitlines()[:2]))
    again = Runner(first.study, first.results, tmp_path / "elsewhere", allow_dirty=True, program=FAKE)
    assert again.run() == 0, "on another machine the run that is needed is done again"
    assert [row["command"] for row in read_lines(first.results)] == [row["command"] for row in rows]


def test_what_needs_a_failed_run_fails_with_it(tmp_path):
    text = "needs: {a: method=erm name=diverges}\npoints: ['method=erm tags=[@a]']"
    first = runner(tmp_path, text)
    assert first.run() == 0
    assert [(row["exit_code"], row["message"][:9]) for row in read_lines(first.results)] == [
        (5, "train: th"),
        (5, "not run: "),
    ]


def test_a_stop_is_passed_on_and_the_next_start_goes_on(tmp_path):
    first = runner(tmp_path, "base: method=erm\npoints: [seed=0, name=long, seed=2]")

    def stop_when_it_waits():
        while not any("waits" in files for _, _, files in os.walk(tmp_path / "runs")):  # folders come and go
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop_when_it_waits)
    thread.start()
    assert first.run() == 85
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(read_lines(first.results)) == 1
    assert runner(tmp_path, "base: method=erm\npoints: [seed=0, name=long, seed=2]").run() == 0
    assert len(read_lines(first.results)) == 3


@pytest.mark.parametrize(
    ("text", "local", "said"),
    [
        ("points: [method=erm, method=nothing]", (), "nothing"),
        ("points: [method=erm]", ("optimizer.lr=1",), "--set optimizer.lr=1: optimizer.lr changes what a run computes"),
        ("points: [method=erm]", ("seed=1",), "seed changes what a run computes"),
    ],
)
def test_nothing_is_written_for_what_cannot_run(tmp_path, text, local, said):
    with pytest.raises(ConfigError, match=said):
        runner(tmp_path, text, local=local).run()
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "runs").exists()


def test_settings_of_the_machine_are_not_recorded(tmp_path):
    here = runner(tmp_path, "points: [method=erm]", local=["trainer.threads=1", f"paths.data_dir={tmp_path}"])
    assert here.run() == 0
    assert read_lines(here.results)[0]["command"] == "train method=erm"


def test_one_process_at_a_time(tmp_path):
    here = runner(tmp_path, "points: [method=erm]")
    with appending(here.results), pytest.raises(RunFolderError, match="another process runs this study"):
        here.run()


def test_a_damaged_line_is_named(tmp_path):
    here = runner(tmp_path, "points: [method=erm]")
    here.results.parent.mkdir()
    here.results.write_text('{"study": "lr", "command": "x", "exit_code": 0}\n{"stu')
    with pytest.raises(ConfigError, match="line 2, is damaged"):
        here.run()


def test_code_that_is_not_committed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("robustlab.study.runner.uncommitted", lambda *_: ["src/robustlab/rng.py"])
    here = runner(tmp_path, "points: [method=erm]")
    here.allow_dirty = False
    with pytest.raises(ConfigError, match=r"uncommitted changes \(src/robustlab/rng.py\)"):
        here.run()
    here.allow_dirty = True
    assert here.run() == 0
    assert read_lines(here.results)[0]["dirty"] is True


def test_uncommitted_sees_only_the_parts_asked_for(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    assert uncommitted(package, "src") is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "results.jsonl").touch()
    assert uncommitted(package, "src", "conf") == []
    (package / "new.py").touch()
    (package / "__init__.py").write_text("x = 1")
    assert sorted(uncommitted(package, "src", "conf") or []) == ["src/package/__init__.py", "src/package/new.py"]


def row(command, accuracy=None, code=0):
    metrics = {} if accuracy is None else {"metrics": {"last": {"test/accuracy": accuracy}}, "final": {"d/beta": 0.5}}
    return {"study": "lr", "command": command, "exit_code": code, **metrics}


def test_the_table_has_mean_and_deviation_per_variant():
    rows = [
        row("train method=erm optimizer.lr=0.1 seed=0", 0.90),
        row("train method=erm optimizer.lr=0.1 seed=1", 0.92),
        row("train method=erm optimizer.lr=1 seed=0", 0.5),
        row("train method=erm optimizer.lr=1 seed=1", code=5),
    ]
    assert list(variants(rows)) == ["optimizer.lr=0.1", "optimizer.lr=1"]
    lines = table(rows).splitlines()
    assert any("optimizer.lr=0.1 " in line and "91.0 ± 1.4 (2)" in line for line in lines)
    assert any("optimizer.lr=1 " in line and "50.0 (1)" in line and "1 of 2" in line for line in lines)
    assert "0.5 ± 0 (2)" in table(rows[:2], "d/beta")
    with pytest.raises(ConfigError, match="no line has val/accuracy under the rule last; there are: d/beta, test"):
        table(rows, "val/accuracy")


@pytest.mark.slow
def test_the_script_runs_a_study_with_the_real_thing(tmp_path):
    small = "dataset=digits noise=none model=mlp trainer.epochs=1 trainer.max_steps=2"
    path = write(tmp_path, f"base: {small}\npoints: ['method=erm seed=0,1', 'method=erm seed=0 optimizer.lr=1e30']")
    command = [sys.executable, ROOT / "scripts" / "study.py", path, "--output", tmp_path / "runs", "--dirty"]
    subprocess.run([*command, "--set", "trainer.threads=1"], check=True, cwd=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results" / "lr.jsonl").read_text().splitlines()]
    assert [line["exit_code"] for line in rows[:2]] == [0, 0]
    assert rows[0]["machine"] == "cpu, 1 threads"
    assert set(rows[0]["metrics"]) >= {"last", "best_test"}
    shown = subprocess.run([*command, "--table"], check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "(2)" in shown
