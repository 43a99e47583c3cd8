"""The end of a run, as a person sees it."""

import io
import shlex

from rich.console import Console

from robustlab.core.console import make_console
from robustlab.tracking.summary import print_summary

RESULTS = {
    "finished": True, "method": "crosssplit", "dataset": "digits", "model": "small_cnn", "seed": 0,
    "noise": {"name": "symmetric", "rate": 0.5, "true_rate": 0.451}, "epochs": 60, "parameters": 12345,
    "seconds": 71.2, "noise_record": {"num_wrong": 648},
    "selection": {
        "last": {"epoch": 59, "test/accuracy": 0.9312, "test/network1/accuracy": 0.92, "test/network2/accuracy": 0.925},
        "mean_last10": {"test/accuracy": 0.93},
        "best_test": {"epoch": 40, "test/accuracy": 0.94},
    },
    "final": {
        "diagnostics/corrected": 0.9, "diagnostics/memorised_own": 0.03, "diagnostics/memorised_other": 0.02,
    },
}  # fmt: skip
BASELINE = {**RESULTS, "method": "erm", "selection": {"last": {"epoch": 59, "test/accuracy": 0.6104}}}


def summary(tmp_path, results=RESULTS, baseline=BASELINE, arguments=("-m", "method=crosssplit", "seed=3")):
    text = io.StringIO()
    run_dir = tmp_path / "crosssplit-digits-0" / "seed0"
    print_summary(results, baseline, run_dir=run_dir, arguments=arguments, console=make_console(text))
    return text.getvalue()


def row(text, label):
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label)]
    return line.strip().removeprefix(label).strip()


def test_all_that_matters_is_there(tmp_path):
    text = summary(tmp_path)
    assert "CrossSplit on digits with symmetric label noise (45.1 % wrong), small_cnn, seed 0" in text
    assert row(text, "CrossSplit, ensemble") == "93.1 %"
    assert row(text, "network 1 alone") == "92.0 %"
    assert row(text, "network 2 alone") == "92.5 %"
    assert row(text, "cross-entropy, same data and epochs") == "61.0 %"
    assert row(text, "CrossSplit is ahead by") == "32.1 points"
    assert row(text, "Wrong labels in the training set") == "648"
    assert row(text, "corrected (predicted as the clean label)") == "583 (90.0 %)"
    assert row(text, "memorised by the network that trained on them") == "19 (3.0 %)"
    assert row(text, "memorised by the network that did not (other half)") == "13 (2.0 %)"
    assert row(text, "oracle: best epoch chosen on the test set, epoch 41") == "94.0 %"
    assert "60 epochs in 1 min 11 s" in text
    assert row(text, "Run folder") == str(tmp_path / "crosssplit-digits-0" / "seed0")
    assert row(text, "More seeds") == "train -m method=crosssplit seed=0,1,2"
    assert row(text, "Table of all runs") == f"robustlab report {tmp_path}"


def test_commands_can_be_pasted_into_a_shell(tmp_path):
    words = ["--config-dir", "my own", "trainer.selection=[last]", "paths.output_dir='mü ö'"]
    text = summary(tmp_path / "mü ö", arguments=words)
    more = row(text, "More seeds")
    assert shlex.split(more) == ["train", "-m", *words, "seed=0,1,2"]
    assert more.count('"') == 2
    assert shlex.split(row(text, "Table of all runs"))[-1] == str(tmp_path / "mü ö")


def test_no_terminal_no_decoration(tmp_path):
    text = summary(tmp_path)
    assert all(character == "\n" or character.isprintable() for character in text)
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_a_method_that_is_behind_says_so(tmp_path):
    better = {**BASELINE, "selection": {"last": {"test/accuracy": 0.95}}}
    assert row(summary(tmp_path, baseline=better), "CrossSplit is behind by") == "1.9 points"


def test_a_plain_run_has_a_short_summary(tmp_path):
    plain = {
        **RESULTS, "method": "erm", "noise": {"name": "none"}, "noise_record": {}, "final": {"test/accuracy": 0.99},
        "selection": {"last": {"epoch": 1, "test/accuracy": 0.99}},
    }  # fmt: skip
    text = summary(tmp_path, plain, None, arguments=())
    assert [line.split() for line in text.splitlines() if line.startswith("cross-entropy  ")] == [
        ["cross-entropy", "99.0", "%"]
    ]
    assert "Wrong labels" not in text
    assert "selection rule" not in text
    assert "noise" not in text
    assert row(text, "More seeds") == "train -m seed=0,1,2"


def test_upload_is_offered_only_for_the_newest_segment_written_offline(tmp_path):
    folder = tmp_path / "crosssplit-digits-0" / "seed0" / "wandb"
    (folder / "offline-run-20260101_000000-x").mkdir(parents=True)
    assert row(summary(tmp_path), "Upload to W&B") == f"wandb sync {folder / 'offline-run-20260101_000000-x'}"
    (folder / "run-20260102_000000-x").mkdir()
    assert "Upload" not in summary(tmp_path)


def test_a_terminal_gets_a_panel_whose_commands_stay_whole(tmp_path):
    text = io.StringIO()
    run_dir = tmp_path / ("long" * 30) / "seed0"
    console = Console(file=text, force_terminal=True, no_color=True, width=80)
    print_summary(RESULTS, BASELINE, run_dir=run_dir, arguments=(), console=console)
    assert "╭" in text.getvalue()
    assert str(run_dir) in text.getvalue()


def test_what_pruning_removed(tmp_path):
    final = {
        "pruning/neuron_sparsity": 0.41, "pruning/weight_sparsity": 0.662, "pruning/flops_ratio": 0.5725,
        "pruning/flops_ratio_physical": 0.2574, "pruning/training_flops_ratio": 0.75,
        "pruning/training_flops_ratio_physical": 0.558, "pruning/live/stem": 8.0, "pruning/live/stages.0.0.conv1": 3.0,
    }  # fmt: skip
    results = {**RESULTS, "method": "demp", "final": final, "parameters": 14966}
    text = summary(tmp_path, results, {**BASELINE, "method": "dense", "parameters": 44226})
    assert row(text, "units (neuron sparsity)") == "41.0 %"
    assert row(text, "weights (weight sparsity)") == "66.2 %"
    assert row(text, "parameters with dense training") == "44,226"
    assert row(text, "FLOPs of a prediction, of the unpruned network's") == "25.7 %"
    assert row(text, "FLOPs of training, of the unpruned network's") == "55.8 %"
    assert row(text, "Units left, layer by layer:") == "8 3"
    assert "Removed by pruning" not in summary(tmp_path)


def test_remarks_on_the_run_are_warnings(tmp_path):
    text = summary(tmp_path, {**RESULTS, "remarks": ["accuracy [test] fell from 70.8 %"]})
    assert "warning: accuracy [test] fell from 70.8 %\n" in text
    assert "warning" not in summary(tmp_path)


def test_what_belongs_to_one_run_is_not_in_the_command_for_more_seeds(tmp_path):
    once = ["resume=force", "+resume=false", "++resume=true", "paths.run_dir=outputs/x", "+paths.run_dir=y", "seed=3"]
    more = row(summary(tmp_path, arguments=[*once, "method=elr", "trainer.epochs=8", "-m"]), "More seeds")
    assert more == "train -m method=elr trainer.epochs=8 seed=0,1,2"


def test_the_table_of_a_run_in_a_folder_of_ones_own_is_that_of_the_folder_it_lies_in(tmp_path):
    text = io.StringIO()
    print_summary(RESULTS, run_dir=tmp_path / "outputs" / "x", arguments=[], console=make_console(text))
    assert row(text.getvalue(), "Table of all runs") == f"robustlab report {tmp_path / 'outputs'}"


def test_a_run_that_was_extended_or_forced_says_so(tmp_path):
    assert "extended from" not in summary(tmp_path)
    text = summary(tmp_path, {**RESULTS, "extended_from": [20, 40], "forced": ["optimizer.lr: 1 when it was saved"]})
    (facts,) = [line for line in text.splitlines() if line.startswith("60 epochs in")]
    extended = "extended from trainer.epochs=20; extended from trainer.epochs=40"
    assert f"; {extended}; changed by force (optimizer.lr: 1 when it was saved)" in facts


def test_a_baseline_of_other_epochs_says_how_many_it_was_trained_for(tmp_path):
    shorter = {**BASELINE, "epochs": 30}
    assert row(summary(tmp_path, baseline=shorter), "cross-entropy, same data, 30 epochs") == "61.0 %"
    assert "same data and epochs" not in summary(tmp_path, baseline=shorter)
