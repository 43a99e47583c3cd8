"""kill -9 at named points and at random: the same command ends with the same bits, and nothing is doubled."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from robustlab.methods.erm import ERM
from tests.end_to_end.harness import assert_same_run, run_folder, start, train
from tests.faults.chaos import torment
from tests.faults.injectors import in_order, kill, on_call, replace
from tests.faults.subjects import arguments

LOOP = "robustlab.engine.loop"
SAVE = "robustlab.engine.checkpoint:Checkpoints.save"


class GlobalNoise(ERM):
    """Draws from torch's global stream, as dropout does."""

    def loss(self, batch, position):
        scalars = super().loss(batch, position)
        return {**scalars, "loss": scalars["loss"] * (1 + torch.rand(()))}


class GlobalOrder(ERM):
    """The negative control: the order of an epoch is drawn from the global stream when the epoch begins."""

    def batches(self, stage, epoch, start):
        batches = list(super().batches(stage, epoch, 0))
        order = torch.randperm(len(batches)).tolist()
        return iter([batches[place] for place in order[start:]])


def killed(command: list[str], log: Path, *faults) -> None:
    """Start a run once for each fault, which kills it."""
    for fault in faults:
        process = start(command, log, before=fault)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, (fault, log.read_text())


def compare(method: str, folder: Path, *faults, more: tuple[str, ...] = (), bad=None) -> None:
    """Compare a run left alone with one killed by each of `faults`; bad: what is wrong with both."""
    log, whole, broken = folder / "log.txt", folder / "whole", folder / "broken"
    assert train(arguments(method, whole, *more), log, before=bad) == 0, log.read_text()
    wrong = faults if bad is None else [partial(in_order, bad, fault) for fault in faults]
    killed(arguments(method, broken, *more), log, *wrong)
    assert train(arguments(method, broken, *more), log, before=bad) == 0, log.read_text()
    assert_same_run(run_folder(whole), run_folder(broken))


@pytest.mark.fault("F1")
def test_kill_at_random_moments_and_operations_of_erm(tmp_path):
    assert torment("erm", tmp_path, kills=2, seed=1).kills == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.fault("F1")
@pytest.mark.parametrize("method", ["crosssplit", "demp", "cobalt", "jtt", "dfr", "early_crop"])
def test_kill_at_random_moments_and_operations_of_methods_with_phases(tmp_path, method):
    assert torment(method, tmp_path, kills=2, seed=1).kills == 2


@pytest.mark.slow
@pytest.mark.fault("F3")
def test_kill_at_every_named_point_of_one_run(tmp_path):
    compare(
        "erm",
        tmp_path,
        partial(on_call, "robustlab.engine.built:read_data", 1, kill),
        partial(on_call, SAVE, 1, kill),  # before there is any checkpoint
        partial(on_call, f"{LOOP}:evaluate_splits", 1, kill),
        partial(on_call, f"{LOOP}:evaluate_splits", 2, kill),
        partial(on_call, "robustlab.engine.training:results_of", 1, kill),  # after the last step
        partial(on_call, "robustlab.engine.training:write_json", 1, kill),
    )
    log, before = tmp_path / "again.txt", (run_folder(tmp_path / "broken") / "results.json").stat().st_mtime_ns
    assert train(arguments("erm", tmp_path / "broken"), log) == 0
    assert "already finished" in log.read_text()
    assert (run_folder(tmp_path / "broken") / "results.json").stat().st_mtime_ns == before


IN_AN_EPOCH = partial(on_call, "robustlab.engine.learner:Learner.step", 5, kill)
GLOBAL_NOISE = ("method._target_=tests.faults.test_kills.GlobalNoise",)


@pytest.mark.slow
@pytest.mark.fault("F1")
def test_kill_leaves_the_global_random_stream_where_it_was(tmp_path):
    compare("erm", tmp_path, IN_AN_EPOCH, more=GLOBAL_NOISE)


def forget(state: object) -> None:
    return None


@pytest.mark.slow
@pytest.mark.fault("F1", "F3", control=True)
def test_kill_control_random_states_that_are_not_restored_change_the_result(tmp_path):
    bad = partial(replace, "robustlab.engine.session:set_rng_state", forget)
    with pytest.raises(AssertionError, match="learners/network"):
        compare("erm", tmp_path, IN_AN_EPOCH, more=GLOBAL_NOISE, bad=bad)


@pytest.mark.slow
@pytest.mark.fault("F1", control=True)
def test_kill_control_an_order_from_the_global_stream_changes_the_result(tmp_path):
    with pytest.raises(AssertionError, match="learners/network"):
        compare("erm", tmp_path, IN_AN_EPOCH, more=("method._target_=tests.faults.test_kills.GlobalOrder",))


# DemP


@pytest.mark.slow
@pytest.mark.fault("F26")
def test_kill_between_the_pruning_of_model_and_optimizer_and_around_it(tmp_path):
    compare(
        "demp",
        tmp_path,
        partial(on_call, "robustlab.pruning.surgery:Surgeon._cut", 1, kill),
        partial(on_call, "robustlab.pruning.slicing:_replace", 2, kill),
        partial(on_call, "robustlab.engine.learner:Learner._forget_shapes", 2, kill),  # the first is that of loading
        more=("trainer.epochs=6",),
    )
    events = json.loads((run_folder(tmp_path / "whole") / "pruning.json").read_text())["events"]
    assert sum(event["removed"] for event in events) > 0


def all_units(surgeon) -> dict:
    """The negative control: a checkpoint that does not say which units are left."""
    return {
        "live": {name: torch.arange(width) for name, width in surgeon.original.items()},
        "idle": {name: torch.zeros(width, dtype=torch.bool) for name, width in surgeon.original.items()},
    }


@pytest.mark.slow
@pytest.mark.fault("F26", control=True)
def test_kill_control_units_that_are_not_saved_leave_a_checkpoint_that_does_not_fit(tmp_path):
    log = tmp_path / "log.txt"
    bad = partial(replace, "robustlab.pruning.surgery:Surgeon.state_dict", all_units)
    late = partial(on_call, SAVE, 6, kill)
    killed(arguments("demp", tmp_path / "out"), log, partial(in_order, bad, late))
    assert train(arguments("demp", tmp_path / "out"), log) == 2
    assert "the checkpoint does not fit the network 'network'" in log.read_text()


# CrossSplit

SPLIT = "robustlab.methods.label_noise.crosssplit"


@pytest.mark.slow
@pytest.mark.fault("F27")
def test_kill_between_the_halves_and_between_extrema_and_training(tmp_path):
    compare(
        "crosssplit",
        tmp_path,
        partial(on_call, f"{SPLIT}.split_step:SplitStep.begin_turn", 1, kill),
        partial(on_call, f"{SPLIT}.label_record:Record.set_extrema", 2, kill),
        partial(on_call, f"{SPLIT}.split_step:SplitStep.begin_turn", 2, kill),
        partial(on_call, f"{SPLIT}.split_step:SplitStep.losses", 5, kill),
    )


def no_extrema(record, state: object) -> None:
    return None


@pytest.mark.slow
@pytest.mark.fault("F27", control=True)
def test_kill_control_extrema_that_are_not_restored_change_the_result(tmp_path):
    bad = partial(replace, f"{SPLIT}.label_record:Record.load_state_dict", no_extrema)
    points = [partial(on_call, f"{SPLIT}.split_step:SplitStep.losses", number, kill) for number in (5, 5)]
    with pytest.raises(AssertionError):
        compare("crosssplit", tmp_path, *points, bad=bad)


@pytest.mark.fault("F27")
def test_altered_noisy_labels_are_found_when_the_run_goes_on(tmp_path):
    import numpy as np

    log, command = tmp_path / "log.txt", arguments("erm", tmp_path / "out")
    killed(command, log, partial(on_call, SAVE, 2, kill))
    path = run_folder(tmp_path / "out") / "labels.npz"
    with np.load(path) as archive:
        content = dict(archive)
    whole, content["assigned"] = path.read_bytes(), (content["assigned"] + 1) % 10
    np.savez(path, **content)
    assert train(command, log) == 3
    assert "labels differ from those that noise=symmetric and seed 0 give, the first in row 0" in log.read_text()
    path.unlink()  # missing: written again, from the same seed
    assert train(command, log) == 0, log.read_text()
    with np.load(path) as archive:
        assert (archive["assigned"] == (content["assigned"] - 1) % 10).all()
    assert len(whole) > 0


def unchecked(data, path: object) -> None:
    return None


@pytest.mark.slow
@pytest.mark.fault("F27", control=True)
def test_label_control_without_the_check_altered_labels_go_unnoticed(tmp_path):
    import numpy as np

    log, command = tmp_path / "log.txt", arguments("crosssplit", tmp_path / "out")
    killed(command, log, partial(on_call, SAVE, 2, kill))
    path = run_folder(tmp_path / "out") / "labels.npz"
    np.savez(path, assigned=np.zeros(5, dtype=np.int64), record="{}")
    bad = partial(replace, "robustlab.data.run_data:Data.check_saved_labels", unchecked)
    assert train(command, log, before=bad) == 0
    assert os.path.getsize(path) > 0
