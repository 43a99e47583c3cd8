"""The effects of a training step, and what it must leave unchanged."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.noise.transitions import FixedLabels, PairFlip, Symmetric
from robustlab.data.run_data import Data
from robustlab.data.transforms.augment import mixup
from robustlab.engine.method import Position
from robustlab.methods.label_noise.crosssplit import objective as losses
from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit
from robustlab.methods.label_noise.crosssplit.peer import measure_extrema
from robustlab.methods.label_noise.crosssplit.targets import ClassExtrema, correct, jensen_shannon
from tests.methods.crosssplit.paper import at_paper_scale
from tests.methods.harness import (
    RUNTIME,
    Gaussians,
    assert_equal,
    flat,
    make_context,
    make_data,
    positions,
    restore,
    run,
    snapshot,
)


def built(*, epochs: int = 3, batch_size: int = 16, train: int = 120, noise: float = 0.5, **options) -> CrossSplit:
    method = at_paper_scale(**options)
    method.build(make_context(make_data(train=train, noise=noise), epochs=epochs, batch_size=batch_size))
    return method


def warmed(**options) -> CrossSplit:
    """A method that has done its warm-up."""
    method = built(**options)
    run(method, stop=warmup_steps(method))
    return method


def warmup_steps(method: CrossSplit) -> int:
    return method.steps_per_epoch(method.stages()[0], 0)


def weights(method: CrossSplit, number: int) -> dict[str, torch.Tensor]:
    return flat(method.learners[f"network{number}"].network.state_dict())


@pytest.mark.parametrize("options", [{}, {"correct": {"source": "self"}}, {"guess": {"source": "both", "bn": "eval"}}])
def test_a_step_changes_the_network_and_nothing_of_its_peer(options):
    method = warmed(**options)
    ssl = method.stages()[1]
    for step, item in enumerate(method.batches(ssl, 0, 0)):
        before = {k: weights(method, k) for k in (1, 2)}
        method.train_step(item, Position("ssl", 0, step, step))
        peer = 3 - item.turn
        assert_equal(before[peer], weights(method, peer))
        assert all(p.grad is None for p in method.learners[f"network{peer}"].network.parameters())
        after = weights(method, item.turn)
        changed = {name for name in after if not torch.equal(after[name], before[item.turn][name])}
        assert {name for name in after if name.endswith(("weight", "running_mean", "running_var"))} <= changed


def test_networks_differ_from_the_start_to_the_end():
    method = built()
    for _ in range(2):
        one, other = weights(method, 1), weights(method, 2)
        assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
        run(method)


def test_extrema_are_of_the_peer_on_plain_images_and_leave_it_as_it_was():
    method = warmed()
    network, loader = method.learners["network2"].network, method.turns[1].extrema
    before = flat(network.state_dict())
    for mode in (False, True):
        network.train(mode)
        extrema = measure_extrema(network, loader.epoch(0), num_classes=5, runtime=RUNTIME)
        assert_equal(before, network.state_dict())
        assert all(module.training == mode for module in network.modules())
    data, half = method.context.data, method.halves[0]
    images = torch.cat([batch.images for batch in data.evaluation("train", 7).epoch(0)])[half]
    with torch.no_grad():
        jsd = jensen_shannon(network.eval()(images).softmax(dim=1), data.assigned[half])
    for c in range(5):
        members = jsd[data.assigned[half] == c]
        torch.testing.assert_close(extrema.low[c], members.min(), rtol=0, atol=1e-6)
        torch.testing.assert_close(extrema.high[c], members.max(), rtol=0, atol=1e-6)


def test_as_is_moves_the_statistics_of_the_peer_in_turn_2_alone():
    method = warmed(jsd={"extrema_bn": "as_is"}, train=300)
    assert [method.turns[k].extrema.order.batch_size for k in (1, 2)] == [100, 100]
    for turn, moves in ((1, False), (2, True)):
        networks = [method.learners[f"network{k}"].network for k in (turn, 3 - turn)]
        before = flat(networks[1].state_dict())
        method.step.begin_turn(turn, network=networks[0], peer=networks[1])
        after = flat(networks[1].state_dict())
        changed = {name.rpartition(".")[2] for name in after if not torch.equal(after[name], before[name])}
        assert changed == ({"running_mean", "running_var", "num_batches_tracked"} if moves else set())


def oracle(method: CrossSplit, item, age: int, extrema: ClassExtrema) -> tuple[torch.Tensor, torch.nn.Module]:
    """One step as the pseudo-code of the paper has it, written out; returns the loss and the network with gradients."""
    settings = method.settings
    net = deepcopy(method.learners[f"network{item.turn}"].network).train()
    peer = deepcopy(method.learners[f"network{3 - item.turn}"].network).eval()
    x1, x2, x3, x4 = item.labelled.views
    u1, u2, u3, u4 = item.unlabelled.views
    y = item.labelled.targets
    with torch.no_grad():
        v = (net(u1).softmax(1) + net(u2).softmax(1)) / 2
        g = v**2 / (v**2).sum(1, keepdim=True)
        p = (peer(x1).softmax(1) + peer(x2).softmax(1)) / 2
        one_hot = F.one_hot(y, 5).float()
        m = (one_hot + p) / 2
        d = 0.5 * sum((torch.xlogy(a, a) - torch.xlogy(a, m)).sum(1) for a in (one_hot, p))
        n = ((d - extrema.low[y]) / (extrema.high[y] - extrema.low[y])).clamp(0, 1)
        b = (0.6 * (n - 0.5) + 0.5)[:, None]
        s = b * p + (1 - b) * one_hot
        h = s**2 / (s**2).sum(1, keepdim=True)
    a1, a2 = net(u3, project=True)[0], net(u4, project=True)[0]
    contrastive = losses.nt_xent(a1, a2, temperature=0.05)
    generator = rng.generator(rng.fold(method.context.seed, "mixup", item.turn, age, item.step))
    x, wanted, lam = mixup(
        torch.cat([x3, x4, u3, u4]), torch.cat([h, h, g, g]), alpha=4.0, generator=generator, at_least_half=True
    )
    assert 0.5 <= lam <= 1
    torch.testing.assert_close(wanted.sum(1), torch.ones(len(wanted)))
    o, rows = net(x), 2 * len(y)
    labelled = -(wanted[:rows] * o[:rows].log_softmax(1)).sum(1).mean()
    unlabelled = ((o[rows:].softmax(1) - wanted[rows:]) ** 2).mean()
    mean = o.softmax(1).mean(0)
    prior = (0.2 * (0.2 / mean).log()).sum()
    weight = 30 * min(max((age + item.step / item.steps - settings.warmup.epochs) / 16, 0), 1)
    return labelled + weight * unlabelled + 0.025 * contrastive + prior, net


def test_every_step_equals_the_pseudo_code():
    method = warmed(train=122)  # 61 a half in batches of 16: the last one has 13
    ssl = method.stages()[1]
    sizes = []
    for epoch in range(2):
        for step, item in enumerate(method.batches(ssl, epoch, 0)):
            if item.step == 0:
                networks = [method.learners[f"network{k}"].network for k in (item.turn, 3 - item.turn)]
                method.step.begin_turn(item.turn, network=networks[0], peer=networks[1])
            loss, net = oracle(method, item, 1 + epoch, method.record.extrema(item.turn))
            loss.backward()
            network = method.learners[f"network{item.turn}"].network
            done = method.step.losses(
                item, 1 + epoch, network=deepcopy(network), peer=deepcopy(method._peer(item.turn))
            )
            torch.testing.assert_close(done["loss"], loss, rtol=0, atol=1e-4)
            method.train_step(item, Position("ssl", epoch, step, step))
            for name, value in network.named_buffers():  # the order of the forwards is the same, too
                torch.testing.assert_close(value, dict(net.named_buffers())[name], rtol=1e-4, atol=1e-5)
            sizes.append(len(item.labelled))
    assert sizes == [16, 16, 16, 13] * 4


def first_item(method: CrossSplit, turn: int = 1):
    return next(item for item in method.batches(method.stages()[1], 0, 0) if item.turn == turn)


def losses_of(method: CrossSplit, item, age: int = 3) -> dict[str, torch.Tensor]:
    networks = {"network": method.learners["network1"].network, "peer": method.learners["network2"].network}
    method.step.begin_turn(1, **networks)
    return method.step.losses(item, age, **networks)


@pytest.mark.parametrize("weight", ["lambda_u", "lambda_c"])
def test_a_weight_of_zero_removes_its_term_exactly(weight):
    method = warmed(loss={weight: 0.0})
    done = losses_of(method, first_item(method))
    others = [done[name] for name in done if name.startswith("weighted_")]
    assert len(others) == (4 if weight == "lambda_u" else 3)
    torch.testing.assert_close(done["loss"], torch.stack(others).sum(), rtol=0, atol=1e-6)
    if weight == "lambda_u":
        assert done["weighted_unlabelled"] == 0
        assert done["loss_unlabelled"] > 0
    done["loss"].backward()
    projection = method.learners["network1"].network.projection[0].weight
    assert (projection.grad is None) == (weight == "lambda_c")


def test_the_contrastive_gradient_reaches_trunk_and_projection_alone():
    method = warmed()
    losses_of(method, first_item(method))["loss_contrastive"].backward()
    reached = {n.split(".")[0] for n, p in method.learners["network1"].network.named_parameters() if p.grad is not None}
    assert reached == {"trunk", "projection"}


def test_without_mixing_the_loss_is_the_unmixed_one():
    method = warmed(mixup={"alpha": 0.0}, unlabelled={"batch_ratio": 0.0}, loss={"prior": 0.0})
    item = first_item(method)
    assert item.unlabelled is None
    network, peer = (method.learners[f"network{k}"].network for k in (1, 2))
    method.step.begin_turn(1, network=network, peer=peer)
    wanted = method.step.correct(item, 3, network=network, peer=peer)
    assert not wanted.requires_grad
    logits = deepcopy(network).train()(torch.cat(item.labelled.views[2:]))
    done = method.step.losses(item, 3, network=network, peer=peer)
    assert set(done) == {"loss", *(f"{kind}_{name}" for kind in ("loss", "weighted") for name in ("labelled", "prior"))}
    torch.testing.assert_close(done["loss"], F.cross_entropy(logits, torch.cat([wanted, wanted])))


def test_with_lambda_1_the_loss_is_the_unmixed_one():
    method = warmed(mixup={"alpha": 0.0})
    item = first_item(method)
    network, peer = (method.learners[f"network{k}"].network for k in (1, 2))
    method.step.begin_turn(1, network=network, peer=peer)
    copy = deepcopy(network)
    g = method.step.guess(item.unlabelled, 1, network=copy, peer=peer)
    h = method.step.correct(item, 3, network=copy, peer=peer)
    contrastive = losses.nt_xent(*(copy(v, project=True)[0] for v in item.unlabelled.views[2:]), temperature=0.05)
    logits = copy(torch.cat([*item.labelled.views[2:], *item.unlabelled.views[2:]]))
    rows = 2 * len(item.labelled)
    wanted = (
        F.cross_entropy(logits[:rows], torch.cat([h, h]))
        + 30 * (3 - 1) / 16 * ((logits[rows:].softmax(1) - torch.cat([g, g])) ** 2).mean()
        + 0.025 * contrastive
        + losses.uniform_prior(logits)
    )
    torch.testing.assert_close(method.step.losses(item, 3, network=network, peer=peer)["loss"], wanted)


def test_mixup_takes_at_least_half_of_each_row():
    lambdas = [
        mixup(torch.ones(2, 1), torch.eye(2), alpha=4.0, generator=rng.generator(key), at_least_half=True)[2]
        for key in range(300)
    ]
    assert 0.5 <= min(lambdas) < 0.51
    assert 0.8 < max(lambdas) <= 1


def test_settings_of_the_correction_reach_it():
    method = warmed(
        gamma={"values": [0.0], "until": []},
        jsd={"normalize": False},
        correct={"views": 1, "temperature": 1.0, "hard": True},
    )
    item = first_item(method)
    networks = {"network": method.learners["network1"].network, "peer": method.learners["network2"].network}
    p = networks["peer"].eval()(item.labelled.views[0]).softmax(1)
    wanted = correct(p, item.labelled.targets, None, gamma=0.0, temperature=1.0, hard=True)
    assert torch.equal(method.step.correct(item, 3, **networks), wanted.targets)
    assert torch.equal(wanted.beta, torch.full_like(wanted.beta, 0.5))


def test_simultaneous_turns_learn_from_the_peer_of_the_epochs_start():
    method = warmed(turn_order="simultaneous")
    ssl = method.stages()[1]
    start = weights(method, 1)
    for step, item in enumerate(method.batches(ssl, 0, 0)):
        method.train_step(item, Position("ssl", 0, step, step))
        assert method.frozen is not None
        assert_equal(method.frozen.state_dict(), start)
        if item.turn == 2:
            assert method._peer(2) is method.frozen
    assert method._peer(1) is method.learners["network2"].network


def test_prediction_is_the_sum_of_logits():
    method = warmed()
    images = next(method.context.data.evaluation("test", 50).epoch(0)).images
    parts = method.predictions(images)
    assert torch.equal(method.predict(images), parts["network1"] + parts["network2"])
    summed = [method.learners[f"network{k}"].network.eval()(images) for k in (1, 2)]
    assert torch.equal(method.predict(images).argmax(dim=1), (summed[0] + summed[1]).argmax(dim=1))
    assert torch.equal(parts["network1"], method.learners["network1"].network.eval()(images))
    assert not parts[""].requires_grad


@pytest.mark.parametrize("train", [113, 114, 115, 116, 130])
def test_short_last_batches_work(train):
    method = built(train=train, batch_size=8, unlabelled={"batch_ratio": 1.0})
    for end in run(method):
        assert all(value == value for value in end.values())


RESUMED = {
    "default": {},
    "simultaneous": {"turn_order": "simultaneous"},
    "precomputed": {"perf": {"precompute_targets": True}, "steps_per_epoch": 6},
    "as_is": {"jsd": {"extrema_bn": "as_is"}},
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_with_the_same_bits(name):
    whole = built(train=80, **RESUMED[name])
    ends = run(whole)
    wanted = snapshot(whole)
    steps = len(positions(whole))
    for stop in range(1, steps, 3 if name == "default" else 5):
        first = built(train=80, **RESUMED[name])
        head = run(first, stop=stop)
        second = built(train=80, **RESUMED[name])
        restore(second, snapshot(first))
        tail = run(second, start=stop)
        assert_equal(snapshot(second), wanted)
        assert head + tail == ends


def test_no_accumulated_gradient_waits_when_the_turn_ends():
    method = warmed()
    for learner in method.learners.values():
        learner.accumulate = 3
    for step, item in enumerate(method.batches(method.stages()[1], 0, 0)):
        method.train_step(item, Position("ssl", 0, step, step))
        assert method.learners[f"network{3 - item.turn}"].pending == 0


@pytest.mark.parametrize(
    ("noise", "wanted", "value"),
    [
        (Symmetric(rate=0.4), "auto", 0.0),
        (PairFlip(rate=0.4), "auto", 0.1),
        (None, "auto", 0.0),
        (Symmetric(rate=0.4), 1.0, 1.0),
    ],
)
def test_weight_of_the_negative_entropy(noise, wanted, value, tmp_path, capsys):
    """Whatever the noise is called, and also where its labels come from a file."""
    for name in ("asymmetric_or_so", "symmetric"):
        data = Data(Gaussians(), seed=0, noise=noise, noise_name=name, views={"weak": [], "strong": []})
        data.save_labels(tmp_path / "labels.npz")
        again = FixedLabels(file=str(tmp_path / "labels.npz"))
        read = Data(Gaussians(), seed=0, noise=again, noise_name=name, views={"weak": [], "strong": []})
        for one in (data, read):
            method = CrossSplit(warmup={"epochs": 1, "neg_entropy": wanted})
            method.build(make_context(one, epochs=2, batch_size=16))
            assert method.entropy_weight == value
    assert "warning" not in capsys.readouterr().err


def test_labels_that_do_not_say_what_their_noise_is(tmp_path, capsys):
    np.save(tmp_path / "labels.npy", make_data().assigned.numpy())
    for asymmetric, value, warned in ((None, 0.0, True), (False, 0.0, False), (True, 0.1, False)):
        noise = FixedLabels(file=str(tmp_path / "labels.npy"), asymmetric=asymmetric)
        data = Data(Gaussians(), seed=0, noise=noise, views={"weak": [], "strong": []})
        method = CrossSplit(warmup={"epochs": 1})
        method.build(make_context(data, epochs=2, batch_size=16))
        assert method.entropy_weight == value
        error = capsys.readouterr().err
        assert ("noise.model.asymmetric=true" in error) is warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": {"data": "all"}}, r"method\.warmup\.data is 'all'; it must be one of own_half, full"),
        ({"warmup": {"neg_entropy": "none"}}, r"neg_entropy"),
        ({"jsd": {"extrema_scope": "half"}}, r"extrema_scope"),
        ({"jsd": {"extrema_bn": "train"}}, r"extrema_bn"),
        ({"gamma": {"values": [0.6, 1.2], "until": [1]}}, r"gamma\.values"),
        ({"gamma": {"values": [0.6, 0.8]}}, r"gamma\.until .* give 1 increasing"),
        ({"guess": {"source": "peer"}}, r"guess\.source"),
        ({"correct": {"views": 3}}, r"correct\.views"),
        ({"correct": {"temperature": 0.0}}, r"temperature is 0\.0; it must be above 0"),
        ({"loss": {"lambda_u": -1.0}}, r"loss\.lambda_u is -1\.0; it must be at least 0"),
        ({"turn_order": "parallel"}, r"turn_order"),
        ({"steps_per_epoch": 0}, r"steps_per_epoch"),
        ({"perf": {"precompute_targets": True}, "correct": {"source": "self"}}, r"precompute_targets"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        CrossSplit(**options)
