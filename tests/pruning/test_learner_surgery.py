"""Training goes on after a removal as if the dead units were still there."""

import copy
from collections.abc import Mapping
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.engine.learner import Learner
from robustlab.engine.loop import _weights
from robustlab.methods.erm import ERM
from robustlab.models.mlp import mlp
from robustlab.models.units import Units, units_of
from tests.pruning.surgical import assert_consistent, assert_healthy, images, kill, some_dead, tiny

CPU = torch.device("cpu")
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4)
OPTIMIZERS = {
    "sgd": SGD,
    "sgd_foreach": partial(SGD, foreach=True),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, foreach=False),
    "adamw_foreach": partial(torch.optim.AdamW, lr=1e-2, foreach=True),
    "adamw_fused": partial(torch.optim.AdamW, lr=1e-2, fused=True),
    "adamw_amsgrad": partial(torch.optim.AdamW, lr=1e-2, amsgrad=True),
}


def perceptron() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mlp(num_classes=4, image_shape=(1, 3, 5), widths=(24, 17), norm="none")


def learner(network: nn.Module, optimizer=SGD, *, runtime: Runtime | None = None, **options) -> Learner:
    return Learner(network, runtime=runtime or Runtime(CPU), optimizer=optimizer, **options)


def train(one: Learner, steps: int, *, shape: tuple[int, ...], first: int = 0) -> list[float]:
    """Steps on batches that are functions of their number; returns the losses."""
    losses = []
    for step in range(first, first + steps):
        one.network.train()
        batch = images(*shape, seed=step).to(one.network.classifier.weight)
        labels = torch.arange(len(batch), device=batch.device) % 4
        loss = F.cross_entropy(one(batch), labels)
        one.step(loss)
        losses.append(loss.item())
    return losses


def surviving(whole: Mapping[str, Tensor], units: Units, live: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an unpruned network, cut to the live units by hand."""
    weights = {name: value.clone() for name, value in whole.items()}
    for part in units.sets:
        index = live[part.name]
        for name in weights:
            if name.rpartition(".")[0] in part.writers and weights[name].dim():
                weights[name] = weights[name][index]
        for reader in part.readers:
            columns = (index[:, None] * reader.columns + torch.arange(reader.columns)).flatten()
            weights[f"{reader.module}.weight"] = weights[f"{reader.module}.weight"][:, columns]
    return weights


def pruned_and_whole(make, optimizer, shape) -> tuple[Learner, Learner]:
    """Two learners in the same place after three steps, killed alike; units are removed from the first."""
    pruned, whole = learner(make(), optimizer), learner(make(), optimizer)
    units = units_of(whole.network)
    dead = some_dead(units)
    for one in (pruned, whole):
        train(one, 3, shape=shape)
        kill(one.network, units, dead)
    pruned.attach_surgeon(units_of(pruned.network))
    assert pruned.remove(dead) == sum(int(mask.sum()) for mask in dead.values())
    return pruned, whole


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_perceptron_goes_on_exactly(optimizer):
    """In double precision, so that sums taken in another order differ by far less than float32 can tell."""
    shape = (16, 1, 3, 5)
    pruned, whole = pruned_and_whole(lambda: perceptron().double(), optimizer, shape)
    train(pruned, 5, shape=shape, first=3)
    train(whole, 5, shape=shape, first=3)
    expected = surviving(whole.network.state_dict(), units_of(whole.network), pruned.surgeon.live)
    for name, value in pruned.network.state_dict().items():
        assert torch.equal(value.float(), expected[name].float()), name
    assert_healthy(pruned.optimizer, pruned.network)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_equal_gradients_lead_to_equal_weights_to_the_bit(optimizer):
    """The optimizer alone, whose arithmetic is element by element.

    The fused one rounds the last elements of a tensor, which do not fill a vector register, differently on some CPUs,
    and removal changes which are last: in double precision by far less than float32 can tell.
    """
    make = (lambda: perceptron().double()) if optimizer.keywords.get("fused") else perceptron
    pruned, whole = pruned_and_whole(make, optimizer, (16, 1, 3, 5))
    units, live = units_of(whole.network), pruned.surgeon.live
    for step in range(5):
        drawn = {name: images(*one.shape, seed=step) for name, one in whole.network.named_parameters()}
        for one, gradients in ((whole, drawn), (pruned, surviving(drawn, units, live))):
            for name, parameter in one.network.named_parameters():
                parameter.grad = gradients[name].to(parameter.dtype)
            one.optimizer.step()
    expected = surviving(whole.network.state_dict(), units, live)
    for name, value in pruned.network.state_dict().items():
        assert torch.equal(value.float(), expected[name].float()), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_network_with_batch_norm_goes_on(optimizer):
    shape = (16, 2, 4, 4)
    pruned, whole = pruned_and_whole(tiny, optimizer, shape)
    train(pruned, 5, shape=shape, first=3)
    train(whole, 5, shape=shape, first=3)
    expected = surviving(whole.network.state_dict(), units_of(whole.network), pruned.surgeon.live)
    for name, value in pruned.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    assert_consistent(pruned.surgeon)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_without_its_state_the_optimizer_goes_elsewhere(optimizer):
    shape = (16, 1, 3, 5)
    pruned, whole = pruned_and_whole(perceptron, OPTIMIZERS[optimizer], shape)
    pruned.optimizer.state.clear()
    train(pruned, 5, shape=shape, first=3)
    train(whole, 5, shape=shape, first=3)
    expected = surviving(whole.network.state_dict(), units_of(whole.network), pruned.surgeon.live)
    assert not torch.allclose(pruned.network.state_dict()["classifier.weight"], expected["classifier.weight"])


def test_schedules_and_the_moving_average_go_on():
    shape = (16, 2, 4, 4)
    scheduled = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=20)
    one = learner(tiny(), ema_decay=0.5, scheduler=scheduled, interval="step")
    units = units_of(one.network)
    train(one, 3, shape=shape)
    dead = some_dead(units)
    for network in (one.network, one.inference_network):
        kill(network, units, dead)
    before = one.inference_network.eval()(images(*shape))
    one.attach_surgeon(units)
    one.remove(dead)
    torch.testing.assert_close(one.inference_network.eval()(images(*shape)), before, rtol=1e-5, atol=1e-5)
    assert_consistent(one.surgeon)
    rate, weight = one.lr, one.network.classifier.weight.detach().clone()
    average = one.inference_network.classifier.weight.detach().clone()
    train(one, 1, shape=shape)
    assert one.lr < rate
    now = one.network.classifier.weight
    assert not torch.equal(now, weight)
    torch.testing.assert_close(one.inference_network.classifier.weight, 0.5 * average + 0.5 * now)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw_foreach", "adamw_amsgrad"])
def test_a_pruned_learner_resumes_to_the_bit(tmp_path, optimizer):
    shape = (16, 2, 4, 4)

    def fresh() -> Learner:
        one = learner(tiny(), OPTIMIZERS[optimizer], ema_decay=0.9, runtime=Runtime(CPU, channels_last=True))
        one.attach_surgeon(units_of(one.network), round_to=2)
        return one

    first, second = fresh(), fresh()
    dead = some_dead(units_of(first.network), share=0.5)
    train(first, 3, shape=shape)
    first.remove(dead)
    train(first, 2, shape=shape, first=3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.load_buffers(dict(first.network.named_buffers()))  # as ranks do, each with its own
    assert_consistent(second.surgeon)
    assert second.surgeon.removed == first.surgeon.removed > 0
    for part in ("live", "idle"):
        saved, loaded = first.surgeon.state_dict()[part], second.surgeon.state_dict()[part]
        assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert train(first, 2, shape=shape, first=5) == train(second, 2, shape=shape, first=5)
    for ours, theirs in ((first.network, second.network), (first.inference_network, second.inference_network)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    shrunk = first.remove({"inner": torch.arange(len(first.surgeon.live["inner"])) < 2})
    assert shrunk == second.remove({"inner": torch.arange(len(second.surgeon.live["inner"])) < 2}) == 2
    assert torch.equal(first.surgeon.live["inner"], second.surgeon.live["inner"])


def test_a_learner_without_a_surgeon_saves_none():
    assert learner(tiny()).state_dict()["units"] is None


def test_snapshots_say_which_units_they_hold():
    one, method = learner(tiny()), ERM()
    method.learners = {"network": one}
    one.attach_surgeon(units_of(one.network))
    assert _weights(method).keys() == {"network"}
    one.remove(some_dead(one.surgeon.units))
    snapshot = _weights(method)
    rebuilt = tiny(7)
    again = learner(rebuilt)
    again.attach_surgeon(units_of(rebuilt)).load_state_dict(snapshot["units"]["network"])
    rebuilt.load_state_dict(snapshot["network"])
    batch = images(8, 2, 4, 4)
    assert torch.equal(rebuilt.eval()(batch), one.network.eval()(batch))
    one.remove({"inner": torch.arange(len(one.surgeon.live["inner"])) == 0})
    assert len(snapshot["units"]["network"]["live"]["inner"]) == len(one.surgeon.live["inner"]) + 1


def test_nothing_is_removed_while_gradients_wait():
    one = learner(tiny(), accumulate=2)
    one.attach_surgeon(units_of(one.network))
    train(one, 1, shape=(16, 2, 4, 4))
    with pytest.raises(AssertionError, match="accumulated"):
        one.remove(some_dead(one.surgeon.units))


def test_an_optimizer_whose_state_cannot_be_cut_is_refused_at_its_first_step():
    one = learner(tiny(), partial(torch.optim.Adafactor, lr=1e-3))
    one.attach_surgeon(units_of(one.network))
    with pytest.raises(ConfigError, match="Adafactor keeps"):
        train(one, 1, shape=(16, 2, 4, 4))


def test_an_optimizer_whose_first_step_the_scaler_skips_is_refused_at_the_next():
    one = learner(tiny(), partial(torch.optim.Adafactor, lr=1e-3), runtime=Runtime(CPU, precision="fp16"))
    one.attach_surgeon(units_of(one.network))
    one.step(one(images(16, 2, 4, 4)).sum() * float("inf"))
    with pytest.raises(ConfigError, match="Adafactor keeps"):
        train(one, 1, shape=(16, 2, 4, 4))


@pytest.mark.parametrize("name", ["lamb", "nadamw", "adamp", "lion"])
def test_optimizers_of_timm_go_on(name):
    from timm.optim import create_optimizer_v2

    one = learner(tiny(), lambda parameters: create_optimizer_v2(list(parameters), opt=name, lr=1e-3))
    one.attach_surgeon(units_of(one.network))
    train(one, 2, shape=(16, 2, 4, 4))
    one.remove(some_dead(one.surgeon.units))
    train(one, 2, shape=(16, 2, 4, 4), first=2)
    assert_consistent(one.surgeon)


@torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=8)  # some optimizers raise the limit
def test_a_compiled_network_is_compiled_once_a_removal_and_never_given_up():
    compilations = 0

    def counting(graph, inputs):
        nonlocal compilations
        compilations += 1
        return graph.forward

    shape = (8, 1, 3, 5)
    torch.compiler.reset()
    one = learner(perceptron(), runtime=Runtime(CPU, compile=True))
    one.network.compile(backend=counting)
    one.attach_surgeon(units_of(one.network))
    train(one, 2, shape=shape)
    assert compilations == 1
    for removals in range(1, 13):
        dead = torch.arange(len(one.surgeon.live[one.surgeon.units.sets[0].name])) == 0
        assert one.remove({one.surgeon.units.sets[0].name: dead}) == 1
        train(one, 2, shape=shape)
        assert compilations == 1 + removals
    twin = perceptron()
    eager = learner(twin)
    eager.attach_surgeon(units_of(twin)).load_state_dict(one.surgeon.state_dict())
    twin.load_state_dict(one.network.state_dict())
    torch.testing.assert_close(one.network(images(*shape)), twin(images(*shape)))
    torch.compiler.reset()


@pytest.mark.gpu
def test_a_network_on_a_gpu_goes_on():
    shape, gpu = (16, 2, 4, 4), torch.device("cuda")

    def fresh() -> Learner:
        runtime = Runtime(gpu, channels_last=True)
        one = learner(tiny().double(), OPTIMIZERS["adamw_fused"], runtime=runtime, ema_decay=0.9)
        one.attach_surgeon(units_of(one.network))
        return one

    one, second = fresh(), fresh()
    train(one, 3, shape=shape)
    dead = {name: mask.to(gpu) for name, mask in some_dead(one.surgeon.units).items()}
    for network in (one.network, one.inference_network):
        kill(network, one.surgeon.units, dead)
    batch = images(*shape, dtype=torch.float64).to(gpu)
    before = one.network.eval()(batch), one.inference_network.eval()(batch)
    constants = {name: torch.zeros(len(mask), device=gpu) for name, mask in dead.items()}
    assert one.remove(dead, constants=constants) == sum(int(mask.sum()) for mask in dead.values())
    torch.testing.assert_close((one.network(batch), one.inference_network(batch)), before, rtol=0, atol=1e-10)
    second.load_state_dict(copy.deepcopy(one.state_dict()))
    assert train(one, 2, shape=shape, first=3) == train(second, 2, shape=shape, first=3)
    assert_consistent(second.surgeon)
