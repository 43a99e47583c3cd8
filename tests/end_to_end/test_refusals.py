"""Mistakes that only show when objects are built: one message, exit code 2, and no run folder left behind."""

import pytest

from tests.end_to_end.harness import rows, run_folder, train


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainer.batch_size=5000"], "lower trainer.batch_size"),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer: Nesterov"),
        (["dataset=cifar10", "paths.data_dir={empty}", "dataset.source.download=false"], "put"),
        (["dataset.subset=100000"], "subset"),
        (["method.label_smoothing=2"], "label_smoothing"),
        (["noise=file", "noise.model.file={empty}/labels.npz"], "labels.npz"),
        (["noise=cifar10n"], "defined on the classes of cifar10"),
        (["trainer.selection=[hg]"], "needs a validation split"),
        (["scheduler=timm_cosine", "scheduler.schedule.warmup_t=100"], "a warm-up of 100 epochs uses up all"),
        (["scheduler.interval=step", "scheduler.schedule.T_max=60"], "T_max: 60 updates, but the run has 1,380"),
    ],
)
def test_one_message_and_no_folder(tmp_path, overrides, expected):
    empty = tmp_path / "empty"
    empty.mkdir()
    outputs, log = tmp_path / "outputs", tmp_path / "log.txt"
    filled = [text.format(empty=empty) for text in overrides]
    assert train(["method=erm", *filled, f"paths.output_dir={outputs}"], log) == 2, log.read_text()
    text = log.read_text()
    assert expected in text
    assert "Traceback" not in text
    assert not outputs.exists() or not list(outputs.iterdir())


def test_a_wrong_command_leaves_a_finished_run_alone(tmp_path):
    outputs, log = tmp_path / "outputs", tmp_path / "log.txt"
    assert train(["method=erm", "trainer.epochs=1", f"paths.output_dir={outputs}"], log) == 0
    folder = run_folder(outputs)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for wrong in ("trainer.batch_size=5000", "method.nothing=1", "noise=wrong"):
        assert train(["method=erm", "trainer.epochs=1", wrong, f"paths.output_dir={outputs}"], log) == 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert rows(folder)[-1]["split"] == "epoch"
