"""The command line around a run: flags, option folders, sweeps, exit codes."""

import json
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from robustlab.config.run_names import run_name, sweep_group
from robustlab.core.errors import ConfigError, DataError, NumericalError
from robustlab.train import main


class Engine(types.ModuleType):
    """Stands in for the engine: notes what it is asked to run, and answers as `answers` says for a seed."""

    def __init__(self) -> None:
        super().__init__("robustlab.engine.run")
        self.seen: list[tuple[DictConfig, list[str], dict[str, Any]]] = []
        self.answers: dict[int, Any] = {}
        self.groups: list[str | None] = []

    def run(self, cfg: DictConfig, overrides: list[str], **extra: Any) -> int:
        """Return or raise the answer for `cfg.seed`; the default is 0."""
        self.seen.append((cfg, overrides, extra))
        self.groups.append(sweep_group())
        answer = self.answers.get(cfg.seed, 0)
        if isinstance(answer, Exception):
            raise answer
        return answer(cfg, extra) if isinstance(answer, FunctionType) else answer


@pytest.fixture
def engine(monkeypatch, tmp_path) -> Engine:
    stub = Engine()
    monkeypatch.setitem(sys.modules, "robustlab.engine.run", stub)
    monkeypatch.chdir(tmp_path)
    return stub


def test_a_run_gets_its_configuration_and_overrides_and_hydra_writes_nothing(engine, tmp_path):
    assert main(["seed=3", "method=erm"]) == 0
    (cfg, overrides, extra), *more = engine.seen
    assert not more
    assert (cfg.seed, cfg.method.name, "hydra" in cfg) == (3, "erm", False)
    assert overrides == ["seed=3", "method=erm"]
    assert extra["group"] is None
    assert Path(cfg.paths.run_dir).parts[0] == "outputs"
    assert OmegaConf.to_container(cfg, resolve=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "code"), [(0, 0), (85, 85), (DataError("row 3"), 3), (NumericalError("nan"), 5), (ConfigError("x"), 2)]
)
def test_exit_codes(engine, capsys, answer, code):
    engine.answers[0] = answer
    assert main([]) == code
    expected = f"train: {answer}\n" if isinstance(answer, Exception) else ""
    assert capsys.readouterr().err == expected


def test_a_bug_keeps_its_traceback(engine):
    engine.answers[0] = ZeroDivisionError("bug")
    with pytest.raises(ZeroDivisionError):
        main([])


def test_a_sweep_runs_every_point_into_its_own_folder(engine, capsys, tmp_path):
    assert main(["-m", "method=erm,elr", "seed=0,1", "trainer.epochs=20"]) == 0
    assert [overrides for _, overrides, _ in engine.seen] == [
        ["method=erm", "seed=0", "trainer.epochs=20"],
        ["method=erm", "seed=1", "trainer.epochs=20"],
        ["method=elr", "seed=0", "trainer.epochs=20"],
        ["method=elr", "seed=1", "trainer.epochs=20"],
    ]
    assert len({cfg.paths.run_dir for cfg, _, _ in engine.seen}) == 4
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "[1/4] method=erm seed=0",
        "[2/4] method=erm seed=1",
        "[3/4] method=elr seed=0",
        "[4/4] method=elr seed=1",
    ]
    assert len(set(engine.groups)) == 1
    assert engine.groups[0] is not None
    assert engine.seen[0][2]["group"] == engine.groups[0]
    assert [path.relative_to(tmp_path).parts[:2] for path in tmp_path.glob("*/*")] == [("outputs", "sweeps")]


def test_a_failed_point_does_not_stop_the_others(engine, capsys):
    engine.answers = {0: DataError("row 3 is damaged"), 1: ZeroDivisionError("bug"), 2: 0}
    assert main(["-m", "seed=0,1,2"]) == 3
    written = capsys.readouterr()
    assert written.err.count("row 3 is damaged") == 1
    assert written.err.count("Traceback") == 1
    assert [line.partition(": ")[2].partition(" in ")[0] for line in written.out.splitlines()] == [
        "failed (exit code 3)",
        "failed (exit code 1)",
        "finished",
    ]


def test_a_signal_stops_the_sweep(engine, capsys):
    engine.answers = {1: 85}
    assert main(["-m", "seed=0,1,2"]) == 85
    assert [cfg.seed for cfg, _, _ in engine.seen] == [0, 1]
    assert "seed=2: not started" in capsys.readouterr().out


def test_finished_points_are_named(engine, capsys):
    def finish(cfg: DictConfig, extra: dict[str, Any]) -> int:
        folder = Path(cfg.paths.run_dir)
        folder.mkdir(parents=True)
        results = {"finished": True, "run_name": run_name(cfg), "seed": cfg.seed}
        (folder / "results.json").write_text(json.dumps(results))
        return 0

    engine.answers = {0: finish}
    main(["seed=0"])
    engine.answers = {}
    main(["-m", "seed=0,1"])
    lines = capsys.readouterr().out.splitlines()
    assert "seed=0: finished before" in lines[0]
    assert "seed=1: finished in" in lines[1]


def test_the_mode_may_come_from_an_override(engine):
    assert main(["hydra.mode=MULTIRUN", "seed=0,1"]) == 0
    assert len(engine.seen) == 2


def test_a_recipe_may_be_a_sweep(engine, tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: range(3)\n"
    (tmp_path / "experiment" / "three.yaml").write_text(text)
    assert main(["--config-dir", ".", "experiment=three"]) == 0
    assert [cfg.seed for cfg, _, _ in engine.seen] == [0, 1, 2]


def test_other_overrides_can_be_composed_from_inside_a_run(engine, tmp_path):
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    text = "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.5\n"
    (tmp_path / "mine" / "optimizer" / "own.yaml").write_text(text)
    seen = []

    def again(cfg: DictConfig, extra: dict[str, Any]) -> int:
        seen.append(extra["compose_again"](["method=erm", "optimizer=own", "seed=0"]))
        with pytest.raises(ConfigError, match="did you mean 'epochs'"):
            extra["compose_again"](["trainer.epoch=1"])
        return 0

    engine.answers = {0: again}
    for flag in (
        ["--config-dir", "mine"],
        [f"hydra.searchpath=[file://{tmp_path}/mine]"],
        ["-m", "--config-dir", "mine"],
    ):
        assert main([*flag, "optimizer=own"]) == 0
    assert [(cfg.method.name, cfg.optimizer.lr) for cfg in seen] == [("erm", 0.5)] * 3


def test_a_method_of_ones_own_beside_the_command(tmp_path):
    """A module in the current folder and a YAML in a folder named by --config-dir: checked, then found by the run."""
    text = "from robustlab.methods.erm import ERM\n\nclass Mine(ERM):\n    def __init__(self, *, rate: float): ...\n"
    (tmp_path / "my_method.py").write_text(text)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    text = "name: mine\n_target_: my_method.Mine\nrate: 0.5\n"
    (tmp_path / "conf" / "method" / "mine.yaml").write_text(text)
    code = """
        import sys, types
        engine = types.ModuleType("robustlab.engine.run")
        engine.run = lambda cfg, overrides, **_: print(__import__("my_method").Mine(rate=cfg.method.rate)) or 0
        sys.modules["robustlab.engine.run"] = engine
        from robustlab.train import main
        for more in ([], ["method.rate=x"], ["+method.rte=1"], ["compare=mine"]):
            print("exit code", main(["--config-dir", "conf", "method=mine", *more]))
    """
    command = [sys.executable, "-I", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    codes = [line for line in done.stdout.splitlines() if line.startswith("exit code")]
    assert codes == [f"exit code {code}" for code in (0, 2, 2, 0)], done.stderr


def test_showing_the_configuration(engine, capsys):
    assert main(["--cfg", "job", "--package", "optimizer", "optimizer=adam"]) == 0
    assert "_target_: torch.optim.Adam\n" in capsys.readouterr().out
    assert main(["--cfg", "job", "--resolve", "seed=3", "--package", "paths"]) == 0
    assert "seed3" in capsys.readouterr().out
    assert main(["--cfg", "hydra"]) == 0
    assert "sweeps" in capsys.readouterr().out
    assert engine.seen == []


def test_help_names_groups_and_examples(engine, capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for expected in (
        "method: ",
        "crosssplit",
        "train -m noise=symmetric method=erm,crosssplit seed=0,1",
        "outputs/<method>-<dataset>",
    ):
        assert expected in text


def test_help_leaves_out_what_options_share(engine, capsys):
    assert main(["--help"]) == 0
    assert " _cifar," not in capsys.readouterr().out


def test_a_reader_may_leave_early(tmp_path):
    command = f"{sys.executable} -m robustlab.train --info all | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Hydra")
    assert done.stderr == ""


def test_the_engine_is_told_where_options_were_found(engine, tmp_path):
    (tmp_path / "my own").mkdir()
    assert main(["--config-dir", "my own", "seed=1"]) == 0
    search = f"hydra.searchpath=[file://{tmp_path}]"
    assert main([search, "seed=1"]) == 0
    assert [extra["flags"] for _, _, extra in engine.seen] == [["--config-dir", str(tmp_path / "my own")], [search]]


def test_tab_completion(engine, capsys, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "train dataset=cifar10")
    assert main(["-sc", "query=bash"]) == 0
    assert "dataset=cifar100" in capsys.readouterr().out.split()
