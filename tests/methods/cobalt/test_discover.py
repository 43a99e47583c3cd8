"""The training step of stage 1: gradients, what moves, determinism, and what is saved."""

import inspect
import io
from dataclasses import replace

import pytest
import torch

from robustlab.methods.groups.cobalt.discover import Discovery
from robustlab.methods.groups.cobalt.discovery_settings import (
    DictionarySettings,
    DiscoverySettings,
    PerfSettings,
    SlotSettings,
    TeacherSettings,
    ViewSettings,
    WeightSettings,
)
from robustlab.methods.groups.cobalt.slot_network import Student
from robustlab.methods.groups.cobalt.two_views import View
from robustlab.models.small_cnn import small_cnn
from tests.methods.cobalt.toy import CPU, Stripes, make_data, make_discovery, make_settings, train
from tests.methods.harness import assert_equal
from tests.methods.test_no_waiting import NoReads, NoSizesFromValues


def state(discovery: Discovery):
    """All state, through a file that only plain types pass."""
    file = io.BytesIO()
    torch.save({"learner": discovery.learner.state_dict(), "own": discovery.state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_gradients_reach_every_part_of_the_student_and_nothing_else():
    data = make_data()
    discovery = make_discovery(data)
    seen = {}

    def keep():
        for name, parameter in discovery.learner.network.named_parameters():
            assert parameter.grad is not None, name
            seen[name.removeprefix("base.").split(".")[0]] = True
            assert bool((parameter.grad != 0).any()), name

    discovery.learner.on_gradients = keep
    train(discovery, data)
    assert seen.keys() == {"encoder", "projector", "slots", "predictor"}
    for name, parameter in discovery.teacher.named_parameters():
        assert parameter.grad is None, name
        assert not parameter.requires_grad, name
    own = (discovery.dictionary.codes, discovery.dictionary.usage, discovery.centre)
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in own)


@pytest.mark.parametrize("left_out", ["distillation", "contrast", "quantisation"])
def test_a_term_of_weight_zero_is_left_out(left_out):
    data = make_data()
    discovery = make_discovery(data, settings=make_settings(weights=WeightSettings(**{left_out: 0.0})))
    for scalars in train(discovery, data):
        terms = [scalars[f"loss_{name}"] for name in ("distillation", "contrast", "quantisation") if name != left_out]
        torch.testing.assert_close(scalars["loss"], terms[0] + terms[1])


def test_the_teacher_follows_after_each_update_and_batch_statistics_are_its_own():
    data = make_data()
    settings = make_settings(teacher=TeacherSettings(momentum=0.5, schedule="constant"))
    discovery = make_discovery(data, settings=settings)
    before = {name: value.clone() for name, value in discovery.teacher.named_parameters()}
    train(discovery, data, steps=1)
    student = discovery.learner.network
    assert isinstance(student, Student)
    for name, value in student.base.named_parameters():
        torch.testing.assert_close(dict(discovery.teacher.named_parameters())[name], 0.5 * before[name] + 0.5 * value)
    statistics = [dict(network.named_buffers()) for network in (discovery.teacher, student.base)]
    norm = next(name for name in statistics[0] if name.endswith("running_mean"))
    assert statistics[0][norm.replace("running_mean", "num_batches_tracked")] == 2  # one forward a view
    assert bool((statistics[0][norm] != 0).any())


def test_a_step_does_what_the_pseudo_code_says():
    """The codes and the centre of the loss are those from before the step, then both move."""
    data = make_data()
    discovery = make_discovery(data)
    train(discovery, data, steps=2)
    codes, centre, updates = discovery.dictionary.codes, discovery.centre, discovery.dictionary.updates
    scalars = train(discovery, data, start=2, steps=3)
    assert len(scalars) == 1
    assert discovery.dictionary.updates == updates + 1
    assert not torch.equal(discovery.dictionary.codes, codes)
    assert not torch.equal(discovery.centre, centre)
    assert scalars[0]["loss"] > 0
    assert 1 <= scalars[0]["active_slots"] <= 3
    assert 1 / 3 <= scalars[0]["largest_slot"] <= 1
    assert 1 <= scalars[0]["perplexity"] <= scalars[0]["codes_used"] + 1e-4 <= 5 + 1e-4


def test_the_loss_falls():
    data = make_data()
    discovery = make_discovery(data, updates=30)
    losses = [float(scalars["loss"]) for scalars in train(discovery, data, epochs=10)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_no_label_enters():
    assert set(inspect.signature(Discovery.step).parameters) == {"self", "images", "index", "epoch", "total"}
    assert not any("label" in field or "target" in field for field in View.__dataclass_fields__)
    states = []
    for shift in (0, 1):
        data = make_data(source=Stripes(label_shift=shift))
        assert all(
            batch.targets is None
            for batch in data.loader(batch_size=32, views=("test",), purpose="discovery", labelled=False).epoch(0)
        )
        discovery = make_discovery(data)
        train(discovery, data)
        states.append(state(discovery))
    assert_equal(*states)


def test_two_runs_are_equal_and_another_seed_differs():
    data = make_data()
    first, second, third = (make_discovery(data, seed=seed) for seed in (0, 0, 1))
    for discovery in (first, second, third):
        train(discovery, data)
    assert_equal(state(first), state(second))
    assert first.hash() == second.hash() != third.hash()


def test_a_resumed_run_is_the_uninterrupted_one():
    data = make_data()
    settings = make_settings(dictionary=DictionarySettings(codes=5, reseed_after=0.1, reseed_below=0.9))
    whole, first, second = (make_discovery(data, settings=settings) for _ in range(3))
    train(whole, data, epochs=2)
    train(first, data, steps=2)
    saved = state(first)
    second.learner.load_state_dict(saved["learner"])
    second.load_state_dict(saved["own"])
    train(second, data, start=2)
    loader = data.loader(batch_size=32, views=("test",), purpose="discovery", labelled=False)
    for batch in loader.epoch(1):
        second.step(batch.images, batch.index, epoch=1, total=batch.total)
    assert_equal(state(whole), state(second))


def test_views_are_those_of_the_sample_whatever_the_batch():
    data = make_data()
    discovery = make_discovery(data)
    batch = next(data.loader(batch_size=32, views=("test",), purpose="discovery", labelled=False).epoch(0))
    together = discovery.views(batch.images, batch.index, epoch=3)
    alone = discovery.views(batch.images[5:6], batch.index[5:6], epoch=3)
    for one, all_rows in zip(alone, together, strict=True):
        assert torch.equal(one.images[0], all_rows.images[5])
    later = discovery.views(batch.images, batch.index, epoch=4)
    assert not torch.equal(later[0].box, together[0].box)


def test_fused_views_share_their_batch_statistics():
    data = make_data()
    fused = make_discovery(data, settings=make_settings(perf=PerfSettings(fuse_views=True)))
    train(fused, data, steps=1)
    counts = {int(value) for name, value in fused.teacher.named_buffers() if name.endswith("tracked")}
    assert counts == {1}


def test_networks_run_in_bfloat16_and_losses_in_float32():
    data = make_data()
    discovery = make_discovery(data, runtime=replace(CPU, precision="bf16"))
    kinds = set()

    def note(module, inputs, output):
        kinds.add(output.dtype)

    discovery.teacher.projector[0].register_forward_hook(note)
    scalars = train(discovery, data, steps=1)[0]
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in scalars.values()} == {torch.float32}
    assert discovery.dictionary.codes.dtype == discovery.centre.dtype == torch.float32


def test_steps_never_wait_for_the_device():
    data = make_data()
    settings = make_settings(
        dictionary=DictionarySettings(codes=5, reseed_below=0.9),
        views=ViewSettings(blur=(1.0, 0.1), solarise=(0.0, 0.2)),
    )
    discovery = make_discovery(data, settings=settings)
    loader = data.loader(batch_size=32, views=("test",), purpose="discovery", labelled=False)
    # Adam counts its steps in tensors that lie on the CPU and reads them there; SGD counts none.
    discovery.learner.optimizer = torch.optim.SGD(discovery.learner.network.parameters(), lr=0.01)
    for batch in loader.epoch(0):
        guard = NoReads()
        with guard, NoSizesFromValues(guard.drawn):
            discovery.step(batch.images, batch.index, epoch=0, total=batch.total)


def test_the_defaults_build_on_the_tiny_preset():
    data = make_data()
    discovery = Discovery(DiscoverySettings(slots=SlotSettings(hidden=16)), task=data.task, runtime=CPU, seed=0)
    network = small_cnn(num_classes=2, image_shape=(3, 32, 32), widths=(12, 24, 48), strides=(2, 1, 2))
    assert discovery.wrap(network)(torch.randn(2, 3, 32, 32)).shape == (2, 32, 8, 8)
