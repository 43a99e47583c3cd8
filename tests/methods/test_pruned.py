import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustlab.core.errors import ConfigError, NumericalError
from robustlab.data.run_data import Data
from robustlab.data.sources.digits import Digits
from robustlab.data.transforms.resample import Resize
from robustlab.engine.learner import Learner
from robustlab.methods.pruning.pruned_network import PrunedNetwork
from robustlab.models.mlp import mlp
from robustlab.models.resnet import resnet_small
from robustlab.models.small_cnn import small_cnn
from robustlab.models.vgg import vgg16
from robustlab.pruning.death import DeathSettings
from robustlab.pruning.surgery_settings import SurgerySettings
from tests.methods.harness import RUNTIME, Options, assert_equal, make_context, make_data, restore, run, snapshot

WIDTHS = (12, 10)
FIRST, LAST = "trunk.1", "trunk.4"
"""Places of the two hidden layers; their norms follow them."""


def built(*, epochs: int = 2, train: int = 128, learner: dict | None = None, **options) -> PrunedNetwork:
    """An MLP with BatchNorm on Gaussians without noise: 8 updates an epoch. `learner`: options of the learner."""
    surgery = {"every": 3, **options.pop("surgery", {})}
    method = PrunedNetwork(
        surgery=SurgerySettings(**surgery), death=DeathSettings(batch_size=50, **options.pop("death", {})), **options
    )
    data = make_data(train=train, test=60, noise=0.0)
    choices = Options(widths=WIDTHS, proj_dim=4, learner=learner or {})
    method.build(make_context(data, epochs=epochs, batch_size=16, options=choices))
    return method


def on_digits(model) -> PrunedNetwork:
    """A method whose network, `model` with its defaults or a narrow VGG, sees digits."""
    small = {vgg16: {"width": 2, "dense": [8, 8], "pool": None}}
    side = 16 if model is vgg16 else 8
    torch.manual_seed(0)
    network = model(num_classes=10, image_shape=(1, side, side), **small.get(model, {}))
    views = {"weak": [], "test": [Resize(size=side)]}
    data = Data(Digits(), seed=0, subset=60, views=views)
    learner = Learner(network, runtime=RUNTIME, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05))
    method = PrunedNetwork()
    context = make_context(data, epochs=1, batch_size=16)
    method.build(replace(context, new_learner=lambda *_, **__: learner))
    return method


def sets(method: PrunedNetwork) -> list[str]:
    return [one.name for one in method.units.sets]


@torch.no_grad()
def silence(method: PrunedNetwork, name: str, rows: list[int] | slice, *, offset: float = -50.0) -> None:
    """Let units put out ReLU(offset) on any input."""
    network = method.learners["network"].network
    for path in method.units[name].writers:
        module = network.get_submodule(path)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight[rows], module.bias[rows] = 0.0, offset


def live(method: PrunedNetwork) -> dict[str, int]:
    return method.surgeon.live_counts()


def test_dead_units_go_at_multiples_of_every_from_start_on():
    method = built(surgery={"start": 4})
    first, last = sets(method)

    def watch(_, position):
        if position.global_step == 1:
            silence(method, first, [0, 3])
        if position.global_step == 7:
            silence(method, last, [5])
        widths.append((len(method.surgeon.live[first]), len(method.surgeon.live[last])))

    widths: list[tuple[int, int]] = []
    run(method, before=watch)
    assert widths[6] == (12, 10)  # t = 3 is before start, t = 6 comes after the watch of step 6
    assert widths[7:10] == [(10, 10)] * 3
    assert widths[10:] == [(10, 9)] * 6
    assert [(event["t"], event["reason"], event["removed"]) for event in method.record.events] == [
        (0, "start", 0),
        (6, "dead", 2),
        (9, "dead", 1),
    ]
    assert method.surgeon.live[first].tolist() == [1, 2, *range(4, 12)]


def test_accumulated_gradients_are_waited_for():
    method = built(learner={"accumulate": 2}, surgery={"every": 1})
    assert method.total_updates == 8
    silence(method, sets(method)[0], [0])
    run(method)  # the learner refuses a removal while a gradient waits
    assert method.record.events[1]["t"] == 0
    assert method.learners["network"].updates == 8


def test_excluded_sets_stay_whole():
    first, last = sets(built())
    method = built(surgery={"exclude": [last]})
    silence(method, first, slice(1, None))
    silence(method, last, [1, 2])
    ends = run(method)
    assert live(method) == {first: 1, last: 10}
    assert ends[-1]["pruning/neuron_sparsity"] == pytest.approx(11 / 22)
    assert ends[-1]["loss"] < 2.0


def test_a_wholly_dead_layer_inside_a_residual_block_leaves_one_unit_that_counts_as_dead():
    method = on_digits(resnet_small)
    inner = "stages.1.0.conv1"
    silence(method, inner, slice(None))
    method.remove_dead(t=0)
    assert len(method.surgeon.live[inner]) == 1
    assert method.record.metrics()[f"pruning/live/{inner}"] == 0
    assert live(method)["stages.1.0.output"] == 16


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (mlp, "dense1"),
        (small_cnn, "conv2"),
        (vgg16, "conv7"),
        (resnet_small, "stem"),
        (resnet_small, "stages.1.0.output"),
    ],
)
def test_a_wholly_dead_layer_that_everything_goes_through_is_an_error(model, name):
    method = on_digits(model)
    silence(method, name, slice(None))
    with pytest.raises(
        NumericalError, match=rf"all units of {name} (\(and \d+ more sets?\) )?are dead at update 3, and"
    ):
        method.remove_dead(t=3)
    assert method.surgeon.removed == 0


def test_a_check_right_after_a_removal_finds_nothing():
    method = built(surgery={"min_width": 4, "round_to": 3})
    first, last = sets(method)
    silence(method, first, [0, 1])
    silence(method, last, slice(2, 10))
    assert method.remove_dead(t=0) == 0 + 4
    assert {name: len(kept) for name, kept in method.surgeon.live.items()} == {first: 12, last: 6}
    assert live(method) == {first: 10, last: 2}
    events = len(method.record.events)
    assert method.remove_dead(t=1) == 0
    assert len(method.record.events) == events


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_network_that_says_the_same_to_all_images_is_an_error(at_the_end):
    method = built(surgery={"start": 10**6 if at_the_end else 0})
    silence(method, sets(method)[1], slice(None))
    with pytest.raises(NumericalError, match="all units of dense2 are dead at update"):
        run(method)
    assert NumericalError.exit_code == 5


def test_an_event_says_what_is_left():
    method = built()
    first, last = sets(method)
    images = next(iter(method.death_batches(100)))
    before = method.predict(images)
    silence(method, first, [0, 1, 2])
    silence(method, last, [9])
    silenced = method.predict(images)
    assert not torch.allclose(before, silenced, atol=1e-3)
    method.remove_dead(t=0)
    torch.testing.assert_close(method.predict(images), silenced, rtol=0, atol=1e-5)
    start, event = method.record.events
    assert start["live"] == {first: 12, last: 10}
    assert event["live"] == event["units"] == {first: 9, last: 9}
    assert 0 <= event["logit_change"] <= 1e-5
    widths = lambda a, b: 16 * a + a * b + b * 5 + b * 4  # noqa: E731 weights of layers, classifier and projection
    rest = lambda a, b: 3 * (a + b) + 5 + 4 + 2 * 4  # noqa: E731 biases and norms
    assert start["parameters"] == widths(12, 10) + rest(12, 10)
    assert event["parameters"] == widths(9, 9) + rest(9, 9)
    assert (start["flops"], event["flops"]) == (2 * (16 * 12 + 120 + 50), 2 * (16 * 9 + 81 + 45))
    assert event["author_flops"] == pytest.approx(2 * (16 * 12 * 9 / 12 + 120 * 9 / 10 + 50))


def test_an_event_tells_what_a_removal_does_to_the_average_that_is_evaluated():
    method = built(learner={"ema_decay": 0.9})
    first = sets(method)[0]
    run(method, stop=1)
    images = next(iter(method.death_batches(method.death.num_samples)))
    before = method.predict(images)
    silence(method, first, [0, 1, 2])  # in the network alone: in its average these units still speak
    method.remove_dead(t=1)
    change = float((method.predict(images) - before).abs().max())
    event = method.record.events[-1]
    assert event["logit_change"] <= 1e-5
    assert event["ema_logit_change"] == pytest.approx(change, abs=1e-5)
    assert change > 1e-3


def test_the_cost_of_training_is_summed_over_the_time_between_removals():
    method = built()
    silence(method, sets(method)[0], [0, 1, 2])

    def later(_, position):
        if position.global_step == 4:
            silence(method, sets(method)[1], [0, 1])

    metrics = run(method, before=later)[-1]
    dense, between, after = (event["author_flops"] for event in method.record.events)
    wanted = 3 * 16 * (6 * between + 10 * after)  # removals before updates 0 and 6 of 16, 16 samples each
    assert metrics["pruning/training_flops"] == pytest.approx(wanted)
    assert metrics["pruning/training_flops_ratio"] == pytest.approx(wanted / (3 * 16 * 16 * dense))
    flops = [event["flops"] for event in method.record.events]
    wanted = (6 * flops[1] + 10 * flops[2]) / (16 * flops[0])
    assert metrics["pruning/training_flops_ratio_physical"] == pytest.approx(wanted)
    assert metrics["pruning/flops_ratio"] == pytest.approx(after / dense)
    assert metrics["pruning/weight_sparsity"] == pytest.approx(
        1 - method.record.events[-1]["parameters"] / method.record.events[0]["parameters"]
    )


def test_the_last_check_takes_all_images_and_tells_what_few_would_have_done():
    method = built(epochs=1, death={"num_samples": 8}, surgery={"start": 10**6})
    name = sets(method)[0]
    few = next(iter(method.death_batches(8)))
    whole = torch.cat(list(method.death_batches(None)))
    assert whole.shape[0] == 128
    assert all(bool((whole == image).flatten(1).all(dim=1).any()) for image in few)
    run(method)
    method.record.events[1:] = []
    # Unit 0 fires on the image that is farthest along a direction, and on none of the few.
    flat = whole.flatten(1)
    for direction in torch.eye(flat.shape[1]):
        order = flat @ direction
        if order.max() > (few.flatten(1) @ direction).max() + 0.5:
            break
    threshold = float(order.max()) - 0.1
    network = method.learners["network"].network.eval()
    layer, norm = network.get_submodule(FIRST), network.get_submodule("trunk.2")
    with torch.no_grad():
        layer.weight[0], layer.bias[0] = direction, -threshold
        norm.weight[0], norm.bias[0], norm.running_mean[0], norm.running_var[0] = 1.0, 0.0, 0.0, 1.0
    silence(method, name, [1])
    report = method._find_dead(8)
    assert report.dead[name][:2].tolist() == [True, True]
    end = method.end_epoch(method.stages()[-1], 0)
    assert end["pruning/final/wrongly_dead"] >= 1
    assert end["pruning/final/samples"] == 128
    assert end["pruning/final/samples_before"] == 8
    assert 0 in method.surgeon.live[name]
    assert 1 not in method.surgeon.live[name]
    event = method.record.events[-1]
    assert (event["reason"], event["disagree_train"], event["disagree_test"]) == ("final", 0.0, 0.0)


def test_a_run_goes_on_to_the_bit_wherever_it_was_stopped_around_a_removal():
    def kill(method):
        def watch(_, position):
            if position.global_step == 4:
                silence(method, sets(method)[0], [2, 7])

        return watch

    learner = {"ema_decay": 0.9, "clip_norm": 1.0}
    whole = built(learner=learner)
    run(whole, before=kill(whole))
    assert [event["t"] for event in whole.record.events] == [0, 6]
    for stop in (6, 7, 15):  # right before, in and after
        first = built(learner=learner)
        run(first, stop=stop, before=kill(first))
        second = built(learner=learner)
        restore(second, snapshot(first))
        run(second, start=stop, before=kill(second))
        assert_equal(snapshot(second), snapshot(whole))
        assert second.record.events == whole.record.events
    ema = whole.learners["network"].inference_network
    assert ema is not whole.learners["network"].network
    assert ema.get_submodule(FIRST).weight.shape == (10, 16)


def test_without_surgery_dead_units_are_counted():
    method = built(surgery={"enabled": False})
    first, _ = sets(method)
    silence(method, first, [0, 1, 2])

    def wake(_, position):
        if position.global_step == 4:
            silence(method, first, [0], offset=0.5)

    end = run(method, before=wake)[-1]
    assert end["pruning/dead_share"] == pytest.approx(2 / 22)
    assert end["pruning/dead_overlap"] == pytest.approx(2 / 3)
    assert end["pruning/neuron_sparsity"] == 0
    assert len(method.record.events) == 1


def test_counting_goes_on_after_units_were_removed_for_another_reason():
    method = built(surgery={"enabled": False})
    first, last = sets(method)
    silence(method, first, [0, 1])
    method.remove_dead(t=0)
    gone = {first: torch.arange(12) == 0, last: torch.arange(10) == 4}
    assert method.prune(gone, reason="score", t=0) == 2
    method.remove_dead(t=1)
    assert method._counted["pruning/dead_share"] == pytest.approx(1 / 22)
    assert method._counted["pruning/dead_overlap"] == 1


def test_constant_units_can_go_into_biases():
    method = built(surgery={"fold_constants": True}, death={"eps": 1e-5})
    first, last = sets(method)
    silence(method, first, [0, 1], offset=0.8)
    silence(method, last, [3], offset=1.5)
    images = torch.cat(list(method.death_batches(None)))
    before = method.predict(images)
    assert method.remove_dead(t=0) == 3
    torch.testing.assert_close(method.predict(images), before, rtol=0, atol=1e-5)
    assert len(method.surgeon.live[first]) == 10


def test_the_run_folder_gets_the_events_and_their_picture(tmp_path):
    method = built()
    silence(method, sets(method)[0], [0])
    run(method)
    (tmp_path / "figures").mkdir()
    pictures = method.finish(tmp_path)
    assert pictures["live_units"].read_bytes()[:4] == b"\x89PNG"
    content = json.loads((tmp_path / "pruning.json").read_text())
    assert content["events"] == method.record.events
    assert content["total_updates"] == 16


def test_the_checks_images_are_always_the_same_and_not_augmented():
    method, other = built(), built()
    for count, sizes in ((70, [50, 20]), (None, [50, 50, 28]), (10**6, [50, 50, 28])):
        found: list[Tensor] = list(method.death_batches(count))
        assert [len(batch) for batch in found] == sizes
        assert all(torch.equal(a, b) for a, b in zip(found, other.death_batches(count), strict=True))


@pytest.mark.parametrize("name", ["every", "min_width", "round_to"])
def test_values_out_of_range(name):
    with pytest.raises(ConfigError, match=rf"method\.surgery\.{name} is 0"):
        SurgerySettings(**{name: 0})


def test_settings_that_contradict_each_other():
    with pytest.raises(ConfigError, match="residual"):
        SurgerySettings(residual="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fold_constants"):
        PrunedNetwork(surgery=SurgerySettings(fold_constants=True), death=DeathSettings(mode="sum"))
    with pytest.raises(ConfigError, match="label_smoothing"):
        PrunedNetwork(label_smoothing=1.0)
    with pytest.raises(ConfigError, match="no set of units"):
        built(surgery={"exclude": ["nothing"]})
