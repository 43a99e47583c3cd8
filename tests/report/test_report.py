"""From run folders to a table."""

import csv
import importlib.util
import io
import json
import statistics
from pathlib import Path

import pytest
import yaml

from robustlab.core.errors import ConfigError
from robustlab.report.collect import collect, find_runs, group_runs, noise_label
from robustlab.report.run_settings import flat_settings, in_words, varying
from robustlab.report.tables import matrix, render

SCRIPTS = Path(__file__).parents[2] / "scripts"


def config(seed, **method):
    return {
        "seed": seed,
        "noise": {"name": "symmetric", "seed": seed, "model": {"rate": 0.5}},
        "method": {"name": "crosssplit", "temperature": 0.5, **method},
        "dataset": {"name": "digits", "workers": seed, "source": {"root": f"/somewhere/{seed}/data"}},
        "trainer": {"epochs": 60, "device": "cpu" if seed else "cuda", "threads": seed},
        "paths": {"data_dir": f"/somewhere/{seed}"},
        "tracker": {"wandb": {"mode": "disabled" if seed else "auto"}},
        "tags": [str(seed)],
    }


def make_run(root, method="crosssplit", digest="1a2b3c4d", seed=0, accuracy=0.9, *, finished=True, **changes):
    name = f"{method}-digits-{digest}"
    folder = root / changes.pop("place", name) / f"seed{seed}"
    folder.mkdir(parents=True)
    settings = changes.pop("config", None) or config(seed)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    results = {
        "finished": finished, "run_name": name, "method": method, "dataset": "digits", "model": "small_cnn",
        "seed": seed, "noise": {"name": "symmetric", "rate": 0.5, "true_rate": 0.45},
        "selection": {
            "last": {"epoch": 59, "test/accuracy": accuracy, "test/loss": 1.5},
            "best_test": {"epoch": 30, "test/accuracy": accuracy if isinstance(accuracy, str) else accuracy + 0.01},
        },
        "final": {"diagnostics/corrected": 0.8}, "finished_at": "2026-01-01T00:00:00", **changes,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def runs(tmp_path):
    for seed, (ours, theirs) in enumerate([(0.93, 0.60), (0.94, 0.62), (0.92, 0.61)]):
        make_run(tmp_path, seed=seed, accuracy=ours)
        make_run(tmp_path, "erm", "ffff0000", seed, theirs)
    return tmp_path


def script(capsys, *arguments):
    return script_at("report.py", capsys, *arguments)


def script_at(name, capsys, *arguments):
    """Run a script with these arguments; return its exit code and what it printed and complained of."""
    spec = importlib.util.spec_from_file_location("script_under_test", SCRIPTS / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code = module.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_mean_and_deviation_over_seeds(runs):
    assert matrix(collect(runs)) == (
        ["method", "digits, symmetric 50 %, small_cnn"],
        [["erm", "61.0 ± 1.0 (3)"], ["crosssplit", "93.0 ± 1.0 (3)"]],
    )


def test_csv_has_the_numbers_in_full(runs):
    rows = list(csv.DictReader(io.StringIO(render(collect(runs), "csv"))))
    assert [row["method"] for row in rows] == ["crosssplit", "erm"]
    assert float(rows[0]["mean"]) == pytest.approx(0.93, abs=1e-15)
    assert float(rows[0]["std"]) == pytest.approx(statistics.stdev([0.93, 0.94, 0.92]))
    assert rows[0]["seeds"] == "0 1 2"
    assert rows[0]["n"] == "3"
    assert rows[0]["noise"] == "symmetric 50 %"


def test_the_oracle_is_called_one_in_every_format(runs):
    report = collect(runs, rule="best_test")
    assert "oracle" in render(report, "terminal")
    assert "oracle" in render(report, "markdown")
    assert "94.0 ± 1.0 (3)" in render(report, "terminal")
    assert "oracle" not in render(collect(runs), "terminal")


def test_one_seed_has_no_deviation_and_a_diverged_run_is_seen(tmp_path):
    make_run(tmp_path, seed=0, accuracy=0.9)
    assert matrix(collect(tmp_path))[1] == [["crosssplit", "90.0 (1)"]]
    make_run(tmp_path, seed=1, accuracy="NaN", **{})
    assert matrix(collect(tmp_path))[1] == [["crosssplit", "diverged (2)"]]


def test_other_metrics(runs):
    assert matrix(collect(runs, metric="test/loss"))[1][1] == ["crosssplit", "1.5 ± 0 (3)"]
    assert matrix(collect(runs, metric="diagnostics/corrected"))[1][1] == ["crosssplit", "80.0 ± 0.0 (3)"]
    with pytest.raises(ConfigError, match=r"no finished run .* has test/acuracy .*test/accuracy, test/loss"):
        collect(runs, metric="test/acuracy")


def test_runs_with_other_settings_are_never_mixed(runs):
    for seed in (0, 1):
        make_run(runs, digest="99999999", seed=seed, accuracy=0.5, config=config(seed, temperature=0.7, beta=[1, 2]))
    report = collect(runs)
    first, second = "method.temperature=0.5", "method.temperature=0.7 method.beta=[1, 2]"
    assert [row[0] for row in matrix(report)[1]] == ["erm", f"crosssplit, {first}", f"crosssplit, {second}"]
    assert [row[1] for row in matrix(report)[1]] == ["61.0 ± 1.0 (3)", "93.0 ± 1.0 (3)", "50.0 ± 0.0 (2)"]
    assert report.notes == []


def test_variants_without_a_configuration_are_told_apart_by_their_hash(tmp_path):
    for digest in ("11111111", "22222222"):
        (make_run(tmp_path, digest=digest) / "config.yaml").unlink()
    assert [group.variant for group in group_runs(find_runs(tmp_path)[0])] == ["[11111111]", "[22222222]"]


def test_a_setting_that_is_swept_on_one_data_set_names_the_runs_on_another(tmp_path):
    for digest, temperature in (("11111111", 0.1), ("22222222", 0.2)):
        make_run(tmp_path, digest=digest, config=config(0, temperature=temperature))
    make_run(tmp_path, digest="33333333", dataset="mnist", config=config(0, temperature=0.2))
    rows = {row[0]: row[1:] for row in matrix(collect(tmp_path))[1]}
    assert rows == {
        "crosssplit, method.temperature=0.1": ["90.0 (1)", ""], "crosssplit, method.temperature=0.2": ["90.0 (1)"] * 2,
    }  # fmt: skip


def test_an_extended_run_is_kept_apart_and_says_so(tmp_path):
    make_run(tmp_path, digest="11111111")
    make_run(tmp_path, digest="22222222", extended_from=[30])
    assert [group.label for group in group_runs(find_runs(tmp_path)[0])] == [
        "crosssplit", "crosssplit, extended_from=[30]",
    ]  # fmt: skip


def test_an_extended_run_says_so_where_it_stands_alone_and_with_many_other_settings(tmp_path):
    make_run(tmp_path / "alone", extended_from=[30])
    assert [row[0] for row in matrix(collect(tmp_path / "alone"))[1]] == ["crosssplit, extended_from=[30]"]
    assert "extended_from=[30]" in render(collect(tmp_path / "alone"), "csv")
    make_run(tmp_path / "forced", forced=["optimizer.lr: 0.05 when it was saved, now 0.5"])
    (row,) = matrix(collect(tmp_path / "forced"))[1]
    assert row[0].startswith("crosssplit, forced=[")
    many = tmp_path / "many"
    for number, digest in enumerate(("11111111", "22222222")):
        settings = config(0)
        settings["method"] |= {f"key{key}": number for key in range(9)}
        make_run(many, digest=digest, config=settings, **({"extended_from": [30]} if number else {}))
    labels = [group.label for group in group_runs(find_runs(many)[0])]
    assert ["extended_from=[30]" in label for label in labels] == [False, True]


SGD = {"optimizer._target_": "torch.optim.SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.9}
ADAM = {"optimizer._target_": "torch.optim.Adam", "optimizer.lr": 1e-3, "optimizer.betas": [0.9, 0.99]}


def test_of_different_options_only_their_names_differ():
    assert varying([SGD, ADAM]) == ["optimizer._target_"]
    assert varying([SGD, ADAM, {**SGD, "optimizer.lr": 0.2}]) == ["optimizer._target_", "optimizer.lr"]
    assert in_words(ADAM, ["optimizer._target_", "optimizer.lr"]) == "optimizer=Adam optimizer.lr=0.001"


def test_settings_are_written_as_on_the_command_line():
    settings = {"a.x": None, "a.y": True, "a.z": "word", "b": [1, 2], "c": 1, "d": 2}
    assert in_words(settings, ["a.x", "a.y", "a.z"]) == "a.x=null a.y=true a.z=word"
    assert in_words(settings, list(settings)) == "a.x=null a.y=true a.z=word b=[1, 2] and 2 more"


def test_what_does_not_change_results_is_no_difference():
    assert varying([flat_settings(config(seed)) for seed in (0, 1, 2)]) == []
    flat = flat_settings(config(1))
    assert flat["method.temperature"] == 0.5
    assert not [name for name in flat if name.startswith(("paths", "tracker", "tags", "seed"))]
    assert flat["dataset.source.root"] == "(a path)"


def test_a_csv_has_a_column_for_each_setting_that_differs(runs):
    make_run(runs, digest="99999999", config=config(0, temperature=0.7, beta=None))
    table = list(csv.DictReader(io.StringIO(render(collect(runs), "csv"))))
    assert list(table[0])[-2:] == ["method.temperature", "method.beta"]
    shown = {(row["method"], row["variant"]): (row["method.temperature"], row["method.beta"]) for row in table}
    assert shown == {
        ("erm", ""): ("0.5", ""),
        ("crosssplit", "method.temperature=0.5"): ("0.5", ""),
        ("crosssplit", "method.temperature=0.7 method.beta=null"): ("0.7", "null"),
    }
    assert [row["seeds"] for row in table if row["method"] == "erm"] == ["0 1 2"]


def test_several_folders_are_one_table_and_none_counts_twice(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        make_run(tmp_path / name, seed=seed)
    code, out, _ = script(capsys, tmp_path / "a", tmp_path / "b", tmp_path, "--format", "markdown")
    assert code == 0
    assert "| crosssplit | 90.0 ± 0.0 (2) |" in out
    code, _, err = script(capsys, tmp_path / "a", tmp_path / "none")
    assert code == 2
    assert "there is no folder" in err


def test_unfinished_set_aside_and_damaged_runs(runs):
    make_run(runs, seed=7, finished=False)
    (make_run(runs, seed=8) / "results.json").write_text("{")
    moved = make_run(runs, seed=9)
    moved.rename(moved.with_name("seed9.old1"))
    report = collect(runs)
    folder = "crosssplit-digits-1a2b3c4d"
    assert report.notes == [f"2 unfinished runs, not shown: {folder}/seed7, {folder}/seed8"]
    assert matrix(report)[1][1][1] == "93.0 ± 1.0 (3)"


def test_copies_of_a_run_count_once(runs):
    make_run(runs, seed=0, accuracy=0.5, place="copy", finished_at="2025-01-01T00:00:00")
    report = collect(runs)
    assert matrix(report)[1][1][1] == "93.0 ± 1.0 (3)"
    assert report.notes == ["1 run with the same settings and seed as another: only the newest counts"]


def test_methods_or_settings_make_the_columns_whichever_are_fewer(runs):
    for rate in (0.2, 0.05, 0.8):
        make_run(runs, "erm", f"0000000{rate}", noise={"name": "symmetric", "rate": rate})
    header, rows = matrix(collect(runs))
    assert header == ["setting", "erm", "crosssplit"]
    assert [row[0] for row in rows] == [f"digits, symmetric {rate} %, small_cnn" for rate in (5, 20, 50, 80)]
    assert rows[0] == ["digits, symmetric 5 %, small_cnn", "90.0 (1)", ""]


def test_noise_in_words():
    assert noise_label({"name": "none", "rate": None}) == "clean"
    assert noise_label(None) == "clean"
    assert noise_label({"name": "worse_label", "rate": None}) == "worse_label"
    assert noise_label({"name": "symmetric", "rate": 0.125}) == "symmetric 12.5 %"


def test_markdown_is_a_table_that_pipes_do_not_break(runs):
    make_run(runs, "a|b", "12121212")
    lines = render(collect(runs), "markdown").splitlines()
    assert lines[2] == "| method | digits, symmetric 50 %, small_cnn |"
    assert lines[3] == "|---|---:|"
    assert "| a\\|b | 90.0 (1) |" in lines


def test_the_script_prints_and_writes(runs, capsys):
    code, out, err = script(capsys, runs)
    assert (code, err) == (0, "")
    assert "93.0 ± 1.0 (3)" in out
    assert "\x1b" not in out
    for name, start in (("t.md", "test/accuracy in %"), ("t.csv", "method,variant"), ("t.txt", "test/accuracy in %")):
        assert script(capsys, runs, "--out", runs / name)[0] == 0
        assert (runs / name).read_text().startswith(start)
    code, out, _ = script(capsys, runs, "--format", "csv", "--rule", "best_test")
    assert out.startswith("method,variant,dataset")


def test_the_script_says_what_is_wrong(tmp_path, capsys):
    code, out, err = script(capsys, tmp_path / "none")
    assert (code, out) == (2, "")
    assert err.startswith("report: there is no folder")
    code, out, err = script(capsys, tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("report: there are no runs in")
    make_run(tmp_path, finished=False)
    code, _, err = script(capsys, tmp_path)
    assert code == 2
    assert "none of the 1 runs" in err
    make_run(tmp_path, "erm")
    code, _, err = script(capsys, tmp_path, "--out", tmp_path / "no" / "t.md")
    assert code == 4
    assert "cannot write" in err
    assert script(capsys, tmp_path, "--rule", "mean_last10")[0] == 2


def test_a_thousand_runs_are_collected(tmp_path):
    text = yaml.safe_dump(
        {**config(0), "rest": {f"group{i}": {f"key{j}": j / 7 for j in range(10)} for i in range(20)}}
    )
    for number in range(100):
        for seed in range(10):
            folder = make_run(tmp_path, digest=f"{number:08x}", seed=seed, config={"seed": seed})
            (folder / "config.yaml").write_text(text)
    finished, unfinished = find_runs(tmp_path)
    assert (len(finished), len(unfinished)) == (1000, 0)
    assert len(collect(tmp_path).entries) == 100
