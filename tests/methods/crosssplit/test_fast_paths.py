"""Each fast path against the simple one."""

from copy import deepcopy

import pytest
import torch

from robustlab.engine.method import Position
from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit
from robustlab.methods.label_noise.crosssplit.peer import probabilities
from tests.methods.crosssplit.paper import at_paper_scale
from tests.methods.harness import RUNTIME, assert_equal, make_context, make_data, restore, run, snapshot


def built(views=None, **options) -> CrossSplit:
    data = make_data(train=100, views=views)
    method = at_paper_scale(**options)
    method.build(make_context(data, epochs=3, batch_size=16))
    return method


def pair(views=None, common=None, **fast) -> tuple[CrossSplit, CrossSplit]:
    """The simple and the fast method after the same warm-up."""
    simple, quick = built(views, **(common or {})), built(views, **(common or {}), perf=fast)
    run(simple, stop=simple.steps_per_epoch(simple.stages()[0], 0))
    restore(quick, snapshot(simple))
    return simple, quick


def test_one_forward_of_the_peer_equals_one_per_view():
    method, _ = pair()
    peer = method.learners["network2"].network.eval()
    views = next(method.turns[1].labelled.epoch(0)).views[:2]
    with torch.no_grad():
        apart = (peer(views[0]).softmax(1) + peer(views[1]).softmax(1)) / 2
    torch.testing.assert_close(probabilities(peer, views, runtime=RUNTIME), apart, rtol=0, atol=1e-6)


@pytest.mark.parametrize("common", [{}, {"correct": {"views": 1}}, {"steps_per_epoch": 9}])
def test_precomputed_targets_are_the_ones_of_each_step(common):
    simple, quick = pair(common=common, precompute_targets=True, batch_size=23)
    for epoch in range(2):
        for step, item in enumerate(simple.batches(simple.stages()[1], epoch, 0)):
            position = Position("ssl", epoch, step, step)
            networks = {
                "network": simple.learners[f"network{item.turn}"].network,
                "peer": simple.learners[f"network{3 - item.turn}"].network,
            }
            if item.step == 0:
                simple.step.begin_turn(item.turn, **networks)
                quick.record.load_state_dict(simple.record.state_dict())
            wanted = simple.step.correct(item, 1 + epoch, **networks)
            torch.testing.assert_close(quick.step.correct(item, 1 + epoch, **networks), wanted, rtol=0, atol=1e-5)
            simple.train_step(item, position)


def test_precomputing_changes_a_run_by_rounding_alone():
    simple, quick = pair(precompute_targets=True)
    start = simple.steps_per_epoch(simple.stages()[0], 0)
    for slow, fast in zip(run(simple, start=start), run(quick, start=start), strict=True):
        assert slow.keys() == fast.keys()
        assert fast["loss"] == pytest.approx(slow["loss"], abs=1e-3)


@pytest.mark.parametrize("fast", ["fuse_guess", "fuse_contrastive"])
def test_fused_forwards_agree_without_augmentation(fast):
    simple, quick = pair(views={"weak": [], "strong": []}, **{fast: True})
    for step, item in enumerate(simple.batches(simple.stages()[1], 0, 0)):
        networks = {
            "network": simple.learners[f"network{item.turn}"].network,
            "peer": simple.learners[f"network{3 - item.turn}"].network,
        }
        if item.step == 0:
            simple.step.begin_turn(item.turn, **networks)
            quick.record.load_state_dict(simple.record.state_dict())
        assert item.unlabelled is not None
        guesses = [
            one.step.guess(item.unlabelled, item.turn, network=deepcopy(networks["network"]), peer=networks["peer"])
            for one in (simple, quick)
        ]
        torch.testing.assert_close(guesses[1], guesses[0], rtol=0, atol=1e-5)
        done = [
            one.step.losses(item, 1, network=deepcopy(networks["network"]), peer=networks["peer"])["loss"]
            for one in (simple, quick)
        ]
        torch.testing.assert_close(done[1], done[0], rtol=0, atol=1e-4)
        simple.train_step(item, Position("ssl", 0, step, step))


def test_a_fused_guess_in_eval_mode_is_the_same_guess():
    simple, quick = pair(common={"guess": {"bn": "eval"}}, fuse_guess=True)
    batch = next(iter(simple.turns[1].unlabelled.epoch(0)))
    networks = {"network": simple.learners["network1"].network, "peer": simple.learners["network2"].network}
    before = snapshot(simple)
    wanted = simple.step.guess(batch, 1, **networks)
    torch.testing.assert_close(quick.step.guess(batch, 1, **networks), wanted, rtol=0, atol=1e-5)
    assert_equal(snapshot(simple)["learners"], before["learners"])
