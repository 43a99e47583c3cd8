import copy

import pytest
import torch
from torch import nn

from robustlab.config.build import build
from robustlab.config.compose import compose
from robustlab.core.errors import ConfigError, NumericalError
from robustlab.methods.erm import ERM
from robustlab.methods.pruning.demp import DemP
from robustlab.pruning.death import DeathSettings
from robustlab.pruning.penalty import PenaltySettings
from robustlab.pruning.surgery_settings import SurgerySettings
from robustlab.pruning.update_noise import NoiseSettings
from tests.methods.harness import Options, assert_equal, make_context, make_data, run, snapshot

OFF = {"reg": {"peak": 0.0}, "noise": {"std": 0.0}}


def built(method, *, epochs: int = 2, lr: float = 0.05, seed: int = 0, **learner):
    data = make_data(train=128, test=60, noise=0.0)
    options = Options(widths=(12, 10), proj_dim=4, lr=lr, learner=learner)
    method.build(make_context(data, epochs=epochs, batch_size=16, seed=seed, options=options))
    return method


def demp(*, reg=None, noise=None, surgery=None, **options) -> DemP:
    return built(
        DemP(
            reg=PenaltySettings(**(reg or {})),
            noise=NoiseSettings(**(noise or {})),
            death=DeathSettings(),
            surgery=SurgerySettings(**{"every": 4, **(surgery or {})}),
        ),
        **options,
    )


def weights(method) -> dict[str, torch.Tensor]:
    return method.learners["network"].network.state_dict()


def test_without_penalty_and_noise_it_is_plain_training_to_the_bit():
    method, plain = demp(**OFF, lr=0.01), built(ERM(), lr=0.01)
    run(method)
    run(plain)
    assert method.surgeon.removed == 0
    assert_equal(weights(method), weights(plain))
    assert_equal(
        method.learners["network"].optimizer.state_dict()["state"],
        plain.learners["network"].optimizer.state_dict()["state"],
    )


def one_update(**options) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], DemP]:
    """Weights before and after the first update of a network whose unit 2 of the first layer is silent."""
    clip = {"clip_norm": options.pop("clip_norm")} if "clip_norm" in options else {}
    method = demp(surgery={"enabled": False}, **options, **clip)
    network = method.learners["network"].network
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm1d))
    with torch.no_grad():
        norm.weight[2], norm.bias[2] = 0.5, -50.0
    before = copy.deepcopy(weights(method))
    batch = next(method.batches(method.stages()[0], 0, 0))
    position = type("Position", (), {"epoch": 0})()
    method.train_step(batch, position)
    return before, weights(method), method


@pytest.mark.parametrize("target", ["scale_only", "all"])
def test_noise_comes_after_the_optimizer_and_leaves_dead_units_and_moments_alone(target):
    reg = {"peak": 0.5, "schedule": "constant", "target": target}
    _, without, quiet = one_update(reg=reg, noise={"std": 0.0})
    before, with_noise, noisy = one_update(reg=reg, noise={"std": 1e-3, "schedule": "constant"})
    assert_equal(
        quiet.learners["network"].optimizer.state_dict()["state"],
        noisy.learners["network"].optimizer.state_dict()["state"],
    )
    for name in ("trunk.1.weight", "trunk.2.weight", "trunk.2.bias"):
        added = with_noise[name] - without[name]
        assert torch.equal(added[2], torch.zeros_like(added[2])), name  # though the penalty has moved it
        assert bool((added[3] != 0).all()), name
    assert not torch.equal(before["trunk.2.weight"][2], without["trunk.2.weight"][2])
    everywhere = one_update(reg=reg, noise={"std": 1e-3, "schedule": "constant", "mask": "all"})[1]
    assert bool((everywhere["trunk.2.bias"][2] != without["trunk.2.bias"][2]).all())


def test_the_penalty_is_clipped_with_the_gradient():
    before, after, _ = one_update(reg={"peak": 1e3, "schedule": "constant"}, noise={"std": 0.0}, lr=1.0, clip_norm=1e-3)
    moved = [
        (after[name] - before[name]).flatten() for name in before if "running" not in name and "num_batches" not in name
    ]
    decay = 5e-4 * torch.cat([before[name].flatten() for name in before if "running" not in name]).norm()
    assert torch.cat(moved).norm() <= 1e-3 + decay


def test_the_seed_of_the_noise_is_its_own():
    found = [
        one_update(noise={"std": 1e-3, "schedule": "constant", "seed": seed})[1]["classifier.weight"]
        for seed in (None, None, 5)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_live_units_never_become_more_and_the_penalty_decides_how_many_are_left():
    sparsity = []
    for peak in (0.0, 0.3, 1.0):
        method = demp(reg={"peak": peak, "span": 0.5}, epochs=8, lr=0.1)
        run(method)
        counts = [sum(event["live"].values()) for event in method.record.events]
        assert counts == sorted(counts, reverse=True)
        sparsity.append(method.surgeon.neuron_sparsity())
    assert sparsity[0] == 0
    assert sparsity[1] <= sparsity[2] + 0.02
    assert sparsity[2] > 0.1


def test_equal_seeds_leave_the_same_units():
    first, second, other = (demp(reg={"peak": 1.0}, epochs=6, lr=0.1, seed=seed) for seed in (0, 0, 1))
    for method in (first, second, other):
        run(method)
    assert first.surgeon.removed > 0
    assert_equal(first.surgeon.live, second.surgeon.live)
    assert_equal(snapshot(first), snapshot(second))
    assert first.record.events == second.record.events
    assert any(not torch.equal(kept, other.surgeon.live[name]) for name, kept in first.surgeon.live.items())


def test_a_penalty_that_kills_everything_says_what_to_lower():
    method = demp(reg={"peak": 0.7})
    norms = [module for module in method.learners["network"].network.modules() if isinstance(module, nn.BatchNorm1d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight[:], norm.bias[:] = 0.0, -1.0
    with pytest.raises(NumericalError, match=r"lower method\.reg\.peak, which is 0\.7"):
        run(method)


def test_a_floor_keeps_layers_alive_at_a_peak_that_kills_them():
    def ended(floor: int | None) -> DemP:
        method = demp(reg={"peak": 1.0, "span": 0.7, "floor": floor}, epochs=12, lr=0.3)
        run(method)
        return method

    with pytest.raises(NumericalError, match=r"lower method\.reg\.peak.*method\.reg\.floor=2"):
        ended(None)
    method = ended(3)
    assert min(method.surgeon.live_counts().values()) >= 3
    assert method.surgeon.neuron_sparsity() > 0.4


@pytest.mark.parametrize(
    ("reg", "surgery", "words"),
    [
        ({"floor": 1}, {"min_width": 2}, r"method\.reg\.floor: 1 is below method\.surgery\.min_width=2"),
        ({"floor": 0}, {}, r"method\.reg\.floor is 0"),
        ({"floor": 2}, {"enabled": False}, r"surgery\.enabled=false"),
    ],
)
def test_a_floor_has_to_fit_the_surgery(reg, surgery, words):
    with pytest.raises(ConfigError, match=words):
        demp(reg=reg, surgery=surgery)


def test_sgdw_decays_beside_the_momentum():
    cfg = compose(["optimizer=sgdw", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.weight_decay=0.02"])
    weight = nn.Parameter(torch.linspace(-2, 2, 7))
    optimizer = build(cfg.optimizer)([weight])
    value, buffer = weight.detach().clone().double(), torch.zeros(7, dtype=torch.float64)
    for step in range(5):
        gradient = torch.sin(torch.arange(7.0) + step)
        weight.grad = gradient.clone()
        optimizer.step()
        buffer = gradient.double() + 0.9 * buffer
        value = value - 0.1 * (buffer + 0.02 * value)
    torch.testing.assert_close(weight.detach().double(), value, rtol=1e-5, atol=1e-6)
