"""Columns about pruning: there when runs have them, at the epoch that the rule selects, speed-ups on equal terms."""

import csv
import io
import json

import pytest

from robustlab.core.errors import ConfigError
from robustlab.report.collect import collect
from robustlab.report.pruning_columns import with_pruning
from robustlab.report.tables import matrix, render
from tests.report.test_report import config, make_run, script

XEON = {"cpu": "Xeon", "torch_threads": 2, "gpus": [], "memory_gib": 24.0}


def make(root, method, digest, seed=0, *, seconds=100.0, sparsity=None, overheads=(), hardware=XEON, **changes):
    settings = config(seed) | {"method": {"name": method}}
    settings["trainer"] = {"epochs": 60, "device": "auto", "batch_size": 64, **changes.pop("trainer", {})}
    final = {}
    if sparsity is not None:
        final = {
            "pruning/neuron_sparsity": sparsity,
            "pruning/weight_sparsity": sparsity + 0.2,
            "pruning/flops_ratio": 1 - sparsity,
            "pruning/flops_ratio_physical": (1 - sparsity) ** 2,
        }
    folder = make_run(root, method, digest, seed, config=settings, final=final, seconds=seconds, **changes)
    starts = [{"hardware": one, "config": settings} for one in (hardware if isinstance(hardware, list) else [hardware])]
    (folder / "record.json").write_text(json.dumps({"starts": starts}))
    rows = [
        {"stage": "train", "epoch": 0, "step": 10, "split": "epoch", "time/epoch_seconds": seconds},
        *({"stage": "train", "epoch": 0, "step": 10, "split": "epoch", **one} for one in overheads),
    ]
    (folder / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def columns(root, **options):
    report = with_pruning(collect(root, **options))
    return [column.name for column in report.columns], {entry.group.label: entry for entry in report.entries}, report


def test_without_pruning_the_table_is_as_it_was(tmp_path):
    make(tmp_path, "erm", "00000000")
    make(tmp_path, "elr", "00000001")
    report = collect(tmp_path)
    assert with_pruning(report) == report
    assert matrix(with_pruning(report)) == matrix(report)


def test_sparsities_and_flops_over_seeds(tmp_path):
    make(tmp_path, "erm", "00000000")
    for seed, sparsity in enumerate((0.4, 0.5)):
        make(tmp_path, "demp", "00000001", seed, sparsity=sparsity)
    header, rows = matrix(with_pruning(collect(tmp_path)))
    assert header[:6] == [
        "method",
        "test/accuracy",
        "neuron sparsity, %",
        "weight sparsity, %",
        "FLOPs, paper's count, %",
        "FLOPs, physical, %",
    ]
    assert rows[0][:3] == ["erm", "90.0 (1)", ""]
    assert rows[1][:6] == ["demp", "90.0 ± 0.0 (2)", "45.0 ± 7.1", "65.0 ± 7.1", "55.0 ± 7.1", "30.5 ± 7.8"]


def test_groups_of_a_method_are_ordered_by_sparsity_and_settings_have_a_column(tmp_path):
    for number, sparsity in enumerate((0.8, 0.3, 0.5)):
        make(tmp_path, "demp", f"0000000{number}", sparsity=sparsity)
    make(tmp_path, "dense", "00000005", noise={"name": "none"})
    header, rows = matrix(with_pruning(collect(tmp_path)))
    assert header[:2] == ["setting", "method"]
    assert [(row[0], row[3]) for row in rows] == [
        ("digits, clean, small_cnn", ""),
        *(("digits, symmetric 50 %, small_cnn", text) for text in ("30.0", "50.0", "80.0")),
    ]


def test_the_sparsity_is_that_of_the_epoch_that_is_reported(tmp_path):
    folder = make(tmp_path, "demp", "00000001", sparsity=0.9)
    rows = [
        {"stage": "train", "epoch": epoch, "step": epoch, "split": "epoch", "pruning/neuron_sparsity": epoch / 100}
        for epoch in range(60)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names, entries, _ = columns(tmp_path, rule="best_test")
    assert names == ["neuron_sparsity"]
    (found,) = entries["demp"].further.values()
    assert found.mean == 0.3  # epoch 30
    _, entries, _ = columns(tmp_path)
    assert next(iter(entries["demp"].further.values())).mean == 0.9
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"metrics\.jsonl cannot be read"):
        columns(tmp_path, rule="best_test")


def speed_ups(root):
    _, entries, report = columns(root)
    found = {column.name: value for column, value in entries["demp"].further.items()}
    note = any(note.startswith("training speed-up") for note in report.notes)
    assert note == ("speed_up" in found)
    return [round(found[name].mean, 6) for name in ("speed_up", "speed_up_without_overheads") if name in found]


def test_training_speed_up_with_and_without_overheads(tmp_path):
    for seed, seconds in enumerate((90.0, 110.0)):
        make(tmp_path, "dense", "00000000", seed, seconds=seconds)
    overheads = [{"time/pruning_seconds": 6.0}, {"time/pruning_seconds": 4.0, "time/final_pruning_seconds": 20.0}]
    make(tmp_path, "demp", "00000001", 5, seconds=60.0, sparsity=0.5, overheads=overheads)
    assert speed_ups(tmp_path) == [round(100 / 80, 6), round(100 / 50, 6)]


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": XEON | {"cpu": "EPYC"}},
        {"hardware": XEON | {"torch_threads": 8}},
        {"hardware": XEON | {"gpus": [{"name": "H100"}]}},
        {"hardware": [XEON, XEON | {"cpu": "EPYC"}]},
        {"trainer": {"batch_size": 256}},
        {"trainer": {"device": "cpu"}},
    ],
    ids=str,
)
def test_no_speed_up_across_machines_or_settings(tmp_path, changes):
    make(tmp_path, "dense", "00000000")
    make(tmp_path, "demp", "00000001", sparsity=0.5, **changes)
    assert speed_ups(tmp_path) == []


def test_other_memory_is_no_other_machine_and_dense_comes_before_erm(tmp_path):
    make(tmp_path, "erm", "00000000", seconds=80.0)
    make(tmp_path, "demp", "00000001", seconds=50.0, sparsity=0.5, hardware=XEON | {"memory_gib": 1.0})
    assert speed_ups(tmp_path) == [1.6, 1.6]
    make(tmp_path, "dense", "00000002", seconds=100.0)
    assert speed_ups(tmp_path) == [2.0, 2.0]


@pytest.mark.parametrize("name", ["record.json", "timing.jsonl"])
def test_files_that_are_not_there_leave_numbers_out(tmp_path, name):
    make(tmp_path, "dense", "00000000")
    folder = make(tmp_path, "demp", "00000001", seconds=50.0, sparsity=0.5)
    (folder / name).unlink()
    assert speed_ups(tmp_path) == []


def test_csv_and_script(tmp_path, capsys):
    make(tmp_path, "dense", "00000000", sparsity=0.0)
    make(tmp_path, "demp", "00000001", seconds=50.0, sparsity=0.5)
    rows = list(csv.DictReader(io.StringIO(render(with_pruning(collect(tmp_path)), "csv"))))
    assert [float(row["neuron_sparsity"]) for row in rows] == [0.5, 0.0]
    assert [row["neuron_sparsity_std"] for row in rows] == ["", ""]
    assert [row["speed_up"] for row in rows] == ["2.0", ""]
    code, out, _ = script(capsys, tmp_path, "--format", "markdown")
    assert code == 0
    assert "| demp | 90.0 (1) | 50.0 | 70.0 | 50.0 | 25.0 | 2 | 2 |" in out
