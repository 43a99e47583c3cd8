from functools import partial

import pytest
import torch
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.core.runtime import Runtime
from robustlab.engine.learner import Learner

RUNTIME = Runtime(torch.device("cpu"))
INPUTS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def learner(**options) -> Learner:
    torch.manual_seed(0)
    optimizer = options.pop("optimizer", partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    return Learner(nn.Linear(4, 2), runtime=options.pop("runtime", RUNTIME), optimizer=optimizer, **options)


def loss(one: Learner, rows: slice) -> torch.Tensor:
    return one(INPUTS[rows]).square().mean()


def test_accumulation_equals_one_step_on_the_whole_batch():
    whole, parts = learner(), learner(accumulate=2)
    for _ in range(3):
        whole.step(loss(whole, slice(0, 8)))
        parts.step(loss(parts, slice(0, 4)))
        assert parts.pending == 1
        parts.step(loss(parts, slice(4, 8)))
        assert parts.pending == 0
    assert whole.updates == parts.updates == 3
    torch.testing.assert_close(whole.network.weight, parts.network.weight)


def test_flush_leaves_no_gradient_behind():
    one = learner(accumulate=4)
    one.step(loss(one, slice(0, 8)))
    with pytest.raises(AssertionError, match="accumulated"):
        one.state_dict()
    one.end_epoch()
    assert one.pending == 0
    assert one.updates == 1
    assert one.network.weight.grad is None


def test_clipping_bounds_the_step():
    one = learner(clip_norm=1e-3, optimizer=partial(torch.optim.SGD, lr=1.0))
    before = nn.utils.parameters_to_vector(one.network.parameters()).detach().clone()
    one.step(100 * loss(one, slice(0, 8)))
    moved = nn.utils.parameters_to_vector(one.network.parameters()).detach() - before
    assert moved.norm() == pytest.approx(1e-3, rel=1e-3)


def test_ema_is_the_recursive_average_and_predicts():
    one = learner(ema_decay=0.9)
    expected = None
    for _ in range(4):
        one.step(loss(one, slice(0, 8)))
        weight = one.network.weight.detach().clone()
        expected = weight if expected is None else 0.9 * expected + 0.1 * weight
    assert one.inference_network is not one.network
    torch.testing.assert_close(one.inference_network.weight, expected)


def test_schedulers_by_epoch_by_step_and_from_timm():
    from timm.scheduler import CosineLRScheduler

    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=300, eta_min=2e-3)
    by_epoch = learner(scheduler=cosine)
    rates = {}
    for epoch in range(300):
        rates[epoch] = by_epoch.lr
        by_epoch.step(loss(by_epoch, slice(0, 8)))
        by_epoch.end_epoch()
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(0.0997316, abs=1e-7)
    assert rates[30] == pytest.approx(0.0976018, abs=1e-7)
    assert rates[150] == pytest.approx(0.051, abs=1e-7)
    assert rates[299] == pytest.approx(0.0020027, abs=1e-7)

    by_step = learner(scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=2), interval="step", accumulate=2)
    for _ in range(4):
        by_step.step(loss(by_step, slice(0, 8)))
    assert by_step.lr == pytest.approx(0.01)

    timm = learner(scheduler=partial(CosineLRScheduler, t_initial=10))
    for _ in range(5):
        timm.step(loss(timm, slice(0, 8)))
        timm.end_epoch()
    assert timm.lr == pytest.approx(0.05)


@pytest.mark.parametrize(
    "scheduler",
    [
        partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=10),
        partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 3]),
        partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.2, total_steps=20),
        None,
    ],
)
def test_a_learner_resumes_to_the_bit_from_plain_types(tmp_path, scheduler):
    interval = "step" if scheduler is not None and scheduler.func is torch.optim.lr_scheduler.OneCycleLR else "epoch"
    options = {"scheduler": scheduler, "interval": interval, "ema_decay": 0.9, "clip_norm": 1.0}
    whole, first, second = learner(**options), learner(**options), learner(**options)

    def train(one):
        for _ in range(3):
            one.step(loss(one, slice(0, 8)))
            one.end_epoch()

    train(whole)
    train(first)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(whole)
    train(second)
    assert second.lr == whole.lr
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])
    for name, value in whole.inference_network.state_dict().items():
        assert torch.equal(value, second.inference_network.state_dict()[name])


def test_bf16_autocast_trains_close_to_float32():
    full = learner()
    half = learner(runtime=Runtime(torch.device("cpu"), precision="bf16"))
    for one in (full, half):
        with one.runtime.autocast():
            output = one(INPUTS)
            value = output.float().square().mean()
        one.step(value)
    assert half.network.weight.dtype == torch.float32
    torch.testing.assert_close(full.network.weight, half.network.weight, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_schedule_that_waits_for_a_plateau_is_told_the_loss(interval):
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0)
    one = learner(scheduler=plateau, interval=interval)
    rates = []
    for value in (1.0, 0.9, 0.95, 0.5):
        one.step(loss(one, slice(0, 8)))
        one.end_epoch(value)
        rates.append(one.lr)
    assert rates == [0.1, 0.1, 0.05, 0.05]


def test_an_optimizer_that_wants_a_closure_is_refused():
    with pytest.raises(ConfigError, match="LBFGS"):
        learner(optimizer=torch.optim.LBFGS)


def test_a_resumed_schedule_does_not_warn_that_it_steps_first():
    def scheduled():
        return learner(scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1))

    first, second = scheduled(), scheduled()
    first.step(loss(first, slice(0, 8)))
    second.load_state_dict(first.state_dict())
    second.end_epoch()  # warnings are errors here
    assert second.lr == pytest.approx(0.01)


def test_broken_weights_and_buffers_of_ones_own():
    one = learner(ema_decay=0.9)
    assert one.is_finite()
    with torch.no_grad():
        one.network.bias[1] = float("nan")
    assert not one.is_finite()
    norm = Learner(nn.BatchNorm1d(4), runtime=RUNTIME, optimizer=partial(torch.optim.SGD, lr=0.1), ema_decay=0.9)
    norm.load_buffers({"running_mean": torch.full((4,), 2.0)})
    for network in (norm.network, norm.inference_network):
        assert network.running_mean.tolist() == [2.0] * 4
        assert network.running_var.tolist() == [1.0] * 4


def fp16_learner(**options) -> Learner:
    """A learner with a gradient scaler, which torch has for the CPU, too."""
    return learner(runtime=Runtime(torch.device("cpu"), precision="fp16"), **options)


@pytest.mark.parametrize("skipped", [True, False])
def test_what_follows_an_update_is_left_out_where_the_scaler_skips_it(skipped):
    called = []
    one = fp16_learner(ema_decay=0.9)
    one.step(loss(one, slice(0, 8)))
    one.on_update = lambda: called.append(one.updates)
    weights = nn.utils.parameters_to_vector(one.network.parameters()).detach().clone()
    average = nn.utils.parameters_to_vector(one.inference_network.parameters()).detach().clone()
    one.step(loss(one, slice(0, 8)) * (float("inf") if skipped else 1.0))
    assert torch.equal(nn.utils.parameters_to_vector(one.network.parameters()), weights) == skipped
    assert torch.equal(nn.utils.parameters_to_vector(one.inference_network.parameters()), average) == skipped
    assert called == ([] if skipped else [1])
    assert one.updates == 2  # schedules count attempts, so that they end with the run
    assert one.network.weight.grad is None


def test_a_schedule_by_steps_whose_first_update_was_skipped_does_not_warn():
    one = fp16_learner(scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1), interval="step")
    one.step(loss(one, slice(0, 8)) * float("inf"))  # warnings are errors here
    one.step(loss(one, slice(0, 8)))
    assert one.lr == pytest.approx(0.001)
