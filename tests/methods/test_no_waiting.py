"""No training step waits for the device: scalars stay where they are until the loop reads them."""

import contextlib
import warnings

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from robustlab.engine.method import Position
from robustlab.methods.erm import ERM
from robustlab.methods.label_noise.co_teaching import CoTeaching
from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit
from robustlab.methods.label_noise.elr import ELR
from robustlab.methods.pruning.demp import DemP
from robustlab.methods.pruning.group_norm import GroupNorm
from robustlab.methods.pruning.slimming import NetworkSlimming
from tests.device import PROTOTYPE, waiting_is_an_error
from tests.methods.harness import Options, make_context, make_data

READS = {"item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__float__", "__int__", "__index__", "__contains__"}
SIZES = {torch.ops.aten.nonzero, torch.ops.aten.masked_select, torch.ops.aten._unique2, torch.ops.aten.equal}


class WaitError(AssertionError):
    pass


class NoReads(TorchFunctionMode):
    """Refuses every call that brings a value to the host. Draws of a generator are made on the host and may be read."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in READS and not any(args[0] is draw for draw in self.drawn):
            raise WaitError(name)
        if name == "to" and any(isinstance(value, str) and value == "cpu" for value in (*args[1:], *kwargs.values())):
            raise WaitError("to cpu")
        result = func(*args, **kwargs)
        if name == "randint" and kwargs.get("generator") is not None:
            self.drawn.append(result)
        return result


class NoSizesFromValues(TorchDispatchMode):
    """Refuses what reads a value below Python, and results whose size depends on values."""

    def __init__(self, drawn: list[Tensor]) -> None:
        super().__init__()
        self.drawn = drawn

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        if packet is torch.ops.aten._local_scalar_dense and not any(args[0] is draw for draw in self.drawn):
            raise WaitError("item")
        if packet in SIZES:
            raise WaitError(str(func))
        if packet in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            raise WaitError("mask")
        return func(*args, **(kwargs or {}))


def no_waiting() -> tuple[NoReads, NoSizesFromValues]:
    reads = NoReads()
    return reads, NoSizesFromValues(reads.drawn)


UNPRUNED = {"prune_at": 1.0, "surgery": {"start": 1000}}
METHODS = {
    "erm": lambda: ERM(),
    "erm with mixup": lambda: ERM(mixup_alpha=1.0, label_smoothing=0.1),
    "elr": lambda: ELR(),
    "demp": lambda: DemP(reg={"target": "all"}, surgery={"start": 1}),  # type: ignore[arg-type]  but for the checks
    "co_teaching": lambda: CoTeaching(),
    "crosssplit": lambda: CrossSplit(warmup={"epochs": 1}),  # type: ignore[arg-type]
    "crosssplit, fast paths": lambda: CrossSplit(
        warmup={"epochs": 1},  # type: ignore[arg-type]
        perf={"fuse_guess": True, "fuse_contrastive": True, "precompute_targets": True},  # type: ignore[arg-type]
    ),
    "crosssplit, released code": lambda: CrossSplit(
        split={"disjoint": False},  # type: ignore[arg-type]
        warmup={"epochs": 1, "data": "full"},  # type: ignore[arg-type]
        jsd={"extrema_scope": "full", "extrema_bn": "as_is"},  # type: ignore[arg-type]
    ),
    "slimming": lambda: NetworkSlimming(**UNPRUNED),
    "group_norm": lambda: GroupNorm(**UNPRUNED),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_reads_nothing_back(name):
    method = METHODS[name]()
    options = Options(learner={"clip_norm": 1.0, "accumulate": 2})
    method.build(make_context(make_data(train=80, test=10), epochs=2, batch_size=16, options=options))
    steps = 0
    for stage in method.stages():
        for step, item in enumerate(method.batches(stage, 0, 0)):
            reads, sizes = no_waiting()
            with reads, sizes:
                scalars = method.train_step(item, Position(stage.name, 0, step, step))
            assert all(isinstance(value, Tensor) for value in scalars.values())
            steps += 1
    assert steps >= 5


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.sum().item(),
        lambda t: float(t.sum()),
        lambda t: bool(t.any()),
        lambda t: t.tolist(),
        lambda t: t.cpu(),
        lambda t: t.to("cpu"),
        lambda t: t.numpy(),
        lambda t: t[t > 0],
        lambda t: t.nonzero(),
        lambda t: [0, 1, 2][t.argmax()],
    ],
)
def test_the_test_sees_a_read(read):
    values = torch.tensor([0.0, 2.0, 1.0])
    reads, sizes = no_waiting()
    with pytest.raises(WaitError), reads, sizes:
        read(values)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["erm", "crosssplit", "elr", "co_teaching", "demp"])
def test_an_epoch_on_a_gpu_does_not_wait(method):
    from robustlab.config.compose import compose
    from robustlab.core.runtime import Runtime
    from robustlab.engine.build_data import build_data
    from robustlab.engine.build_method import build_method

    options = [f"method={method}", "trainer.device=cuda", "trainer.epochs=3", "dataset.subset=400"]
    cfg = compose([*options, *(["method.warmup.epochs=1"] if method == "crosssplit" else [])])
    runtime = Runtime.from_config(cfg.trainer)
    built = build_method(cfg, build_data(cfg, runtime), runtime)
    for stage in built.stages():
        for epoch in range(2 if stage.epochs > 1 else 1):  # the first allocates and chooses kernels
            with waiting_is_an_error() if epoch else contextlib.nullcontext():
                for step, item in enumerate(built.batches(stage, epoch, 0)):
                    built.train_step(item, Position(stage.name, epoch, step, step))


@pytest.fixture
def modes(monkeypatch, request) -> list[str]:
    """Imitates torch's switch, which warns of `request.param`; returns what it was set to."""
    found = []

    def set_mode(mode):
        warnings.warn(request.param, UserWarning, stacklevel=2)
        found.append(mode)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    return found


@pytest.mark.parametrize("modes", [f"{PROTOTYPE} (Triggered internally at Module.cpp:1.)"], indirect=True)
def test_that_torch_calls_its_detector_a_prototype_is_no_error(modes):
    with waiting_is_an_error():
        assert modes == ["error"]
    assert modes == ["error", "default"]


@pytest.mark.parametrize("modes", ["something else"], indirect=True)
def test_other_warnings_of_the_detector_stay_errors(modes):
    with pytest.raises(UserWarning, match="something else"), waiting_is_an_error():
        pass
    assert modes == []
