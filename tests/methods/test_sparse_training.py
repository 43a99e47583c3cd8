"""Network slimming and GroupNorm: what pulls on the weights before the pruning, what goes, and nothing afterwards."""

import sys
from dataclasses import replace

import pytest
import torch
import torch_pruning
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.data.sources.digits import Digits
from robustlab.engine.learner import Learner
from robustlab.methods.pruning.group_norm import GroupNorm
from robustlab.methods.pruning.one_shot import OneShot
from robustlab.methods.pruning.slimming import NetworkSlimming
from robustlab.models.mlp import mlp
from robustlab.models.resnet import cifar_resnet
from tests.methods.harness import RUNTIME, Options, assert_equal, make_context, make_data, restore, run, snapshot

LR = 0.05


def built(method: OneShot, *, network: nn.Module | None = None) -> OneShot:
    context = make_context(make_data(train=80, test=20), epochs=2, batch_size=16, options=Options(widths=(12, 20)))
    if network is not None:
        context = replace(
            context,
            new_learner=lambda *_, **__: Learner(
                network, runtime=RUNTIME, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=LR)
            ),
        )
    method.build(context)
    return method


def small() -> nn.Module:
    torch.manual_seed(0)
    network = mlp(num_classes=5, image_shape=(1, 1, 16), widths=(12, 20))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
    return network


def changes(method: OneShot, without: OneShot) -> dict[str, torch.Tensor]:
    """What one step of training does to each parameter more than it does without the pull."""
    for one in (method, without):
        run(one, stop=1)
    plain = dict(without.learners["network"].network.named_parameters())
    return {
        name: (weight - plain[name]).detach() for name, weight in method.learners["network"].network.named_parameters()
    }


def test_slimming_pulls_on_every_gamma_alike_and_on_nothing_else():
    start = {name: weight.clone() for name, weight in small().named_parameters()}
    made = changes(
        built(NetworkSlimming(strength=0.1), network=small()), built(NetworkSlimming(strength=0.0), network=small())
    )
    norms = {f"trunk.{index}.weight" for index in (2, 5)}
    assert norms <= made.keys()
    for name, change in made.items():
        wanted = -LR * 0.1 * start[name].sign() if name in norms else torch.zeros_like(change)
        torch.testing.assert_close(change, wanted, atol=1e-7, rtol=1e-4)


def test_slimming_removes_the_smallest_gammas():
    method = built(NetworkSlimming(prune_at=0.0), network=small())
    gammas = {f"trunk.{index}": module.weight.detach().abs() for index, module in method_norms(method)}
    border = torch.cat(list(gammas.values())).sort().values[16]
    run(method, stop=1)
    assert [kept.tolist() for kept in method.surgeon.live.values()] == [
        (values >= border).nonzero().flatten().tolist() for values in gammas.values()
    ]


def method_norms(method: OneShot) -> list[tuple[int, nn.BatchNorm1d]]:
    trunk = method.learners["network"].network.trunk
    return [(index, module) for index, module in enumerate(trunk) if isinstance(module, nn.BatchNorm1d)]


@pytest.mark.parametrize("method", [NetworkSlimming, GroupNorm])
def test_after_the_pruning_nothing_pulls(method):
    pulled, free = (built(method(prune_at=0.0, strength=strength), network=small()) for strength in (0.1, 0.0))
    run(pulled)
    run(free)
    assert_equal(snapshot(pulled)["learners"], snapshot(free)["learners"])


@pytest.mark.parametrize("method", [NetworkSlimming, GroupNorm])
@pytest.mark.parametrize("stop", [4, 5, 6])
def test_it_goes_on_from_around_the_pruning(method, stop):
    whole = built(method(prune_at=0.5, strength=0.01))
    run(whole)
    first, second = built(method(prune_at=0.5, strength=0.01)), built(method(prune_at=0.5, strength=0.01))
    run(first, stop=stop)
    restore(second, snapshot(first))
    run(second, start=stop)
    assert_equal(snapshot(second), snapshot(whole))
    assert whole.surgeon.removed == 16


def test_slimming_needs_scales():
    bare = mlp(num_classes=5, image_shape=(1, 1, 16), widths=(12,), norm="none")
    with pytest.raises(ConfigError, match="no normalisation scale"):
        built(NetworkSlimming(), network=bare)


def test_group_norm_pulls_as_the_library_does():
    network = small()
    made = changes(built(GroupNorm(strength=0.01), network=small()), built(GroupNorm(strength=0.0), network=small()))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="max")
    torch_pruning.pruner.GroupNormPruner(
        network, torch.zeros(1, 1, 1, 16), importance=importance, reg=0.01, ignored_layers=[network.classifier]
    ).regularize(network)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(made[name], -LR * parameter.grad, atol=1e-7, rtol=1e-3)
    assert made["trunk.1.weight"].abs().max() > 0


@pytest.mark.parametrize("normalizer", ["max", "mean"])
def test_group_norm_removes_what_the_library_removes(normalizer):
    network, theirs = small(), small()
    method = built(GroupNorm(prune_at=0.0, target={"neurons": 0.5}, normalizer=normalizer), network=network)
    library = torch_pruning.pruner.GroupNormPruner(
        theirs,
        torch.zeros(1, 1, 1, 16),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer=normalizer),
        global_pruning=True,
        pruning_ratio=0.5,
        ignored_layers=[theirs.classifier],
    )
    library.step()
    method.prune_to_target(0)
    ours = network.state_dict()
    assert method.surgeon.removed == 16
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("residual", ["per_block", "stage_shared", "inner_only"])
def test_group_norm_ranks_streams_as_wholes_only(residual):
    data = Data(Digits(), seed=0, subset=60, views={"weak": []})
    network = cifar_resnet(num_classes=10, image_shape=(1, 8, 8), width=4)
    learner = Learner(network, runtime=RUNTIME, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=LR))
    context = replace(make_context(data, epochs=1, batch_size=16), new_learner=lambda *_, **__: learner)
    method = GroupNorm(surgery={"residual": residual}, prune_at=0.0)  # type: ignore[arg-type]
    if residual == "per_block":
        with pytest.raises(ConfigError, match="stage_shared or inner_only"):
            method.build(context)
    else:
        method.build(context)
        method.prune_to_target(0)
        assert method.surgeon.neuron_sparsity() == pytest.approx(0.5, abs=0.5 / method.units.total)


def test_without_the_library_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ConfigError, match="uv sync --extra pruning"):
        GroupNorm()


@pytest.mark.parametrize("options", [{"strength": -1.0}, {"alpha": 0.5}, {"normalizer": "sum"}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        GroupNorm(**options)
