"""P9 and P10: what removing units is worth in a training step, what it costs, and a whole run of DemP over dense.

The network is the pre-activation ResNet-18 (with its final norm, so that all widths can shrink) on 32x32 images, one
CPU thread, channels_last, SGD with momentum, batches of 32. Units to remove are drawn at random, the same share of
every layer, as speed depends on how many go, not on which. Networks take turns; all times are CPU seconds.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import interleave, middle, ratio, row, spread
from robustlab.core.runtime import Runtime
from robustlab.engine.learner import Learner
from robustlab.models.preact_resnet import preact_resnet18
from robustlab.models.units import Units, units_of
from robustlab.pruning.cost import Cost, forward_flops
from robustlab.pruning.death import DeathSettings, find_dead

RGB32 = (3, 32, 32)
BATCH = 32
RUNTIME = Runtime(torch.device("cpu"), channels_last=True)
DIGITS = (
    "experiment=demp/digits_smoke", "model.widths=[32,64,128]", "method.death.num_samples=256", "tracker=local",
    "tracker.progress.mode=off", "trainer.threads=1", "trainer.device=cpu",
)  # fmt: skip


def _learner(network: nn.Module) -> Learner:
    return Learner(network, runtime=RUNTIME, optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9))


def _dense(width: int = 64) -> nn.Module:
    torch.manual_seed(0)
    return preact_resnet18(num_classes=10, image_shape=RGB32, width=width, final_bn=True)


def _drawn(units: Units, gone: float) -> dict[str, Tensor]:
    """Return which units to remove: the same share of every set, drawn at random, the same ones in every call."""
    generator = torch.Generator().manual_seed(0)
    dead = {}
    for one in units.sets:
        dead[one.name] = torch.zeros(one.width, dtype=torch.bool)
        chosen = torch.randperm(one.width, generator=generator)[: round(gone * one.width)]
        dead[one.name][chosen] = True
    return dead


def _pruned(gone: float, *, residual: str, round_to: int = 1) -> Learner:
    """Return a learner that has lost a share of its units, after an update, so that there is optimizer state to cut."""
    learner = _learner(_dense())
    _train(learner, _batch(2))
    learner.attach_surgeon(units_of(learner.network).in_mode(residual), round_to=round_to)
    learner.remove(_drawn(learner.surgeon.units, gone))  # type: ignore[union-attr]
    return learner


def _fresh(like: nn.Module) -> Learner:
    """Return a learner of a newly built network with the widths of `like`, whose skips are plain sums."""
    network = _dense()
    for path, module in like.named_modules():
        made: nn.Module | None = None
        if isinstance(module, nn.Conv2d):
            sizes: Any = (module.kernel_size, module.stride, module.padding)
            made = type(module)(module.in_channels, module.out_channels, *sizes, bias=False)
        elif isinstance(module, nn.BatchNorm2d):
            made = nn.BatchNorm2d(module.num_features)
        elif isinstance(module, nn.Linear):
            made = nn.Linear(module.in_features, module.out_features)
        if made is not None:
            network.set_submodule(path, made)
    return _learner(network)


def _batch(size: int = BATCH) -> tuple[Tensor, Tensor]:
    images = torch.randn(size, *RGB32, generator=torch.Generator().manual_seed(0))
    return images.to(memory_format=torch.channels_last), torch.arange(size) % 10


def _train(learner: Learner, batch: tuple[Tensor, Tensor], *, steps: int = 1) -> None:
    learner.network.train()
    for _ in range(steps):
        learner.step(F.cross_entropy(learner(batch[0]), batch[1]))


def steps(*, rounds: int) -> Iterator[dict[str, Any]]:
    """P9: a training step after removal against the dense one, and against a new network of the same widths."""
    cases: dict[str, tuple[float, str, int, str]] = {
        "50 % of the inner channels gone": (0.50, "inner_only", 1, ">= 0.75"),
        "75 % of the inner channels gone": (0.75, "inner_only", 1, ">= 0.6"),
        "90 % of the inner channels gone": (0.90, "inner_only", 1, "reported"),
        "90 %, widths rounded up to 8": (0.90, "inner_only", 8, "reported"),
        "70 % of the inner channels gone": (0.70, "inner_only", 1, "reported"),
        "70 %, widths rounded up to 8": (0.70, "inner_only", 8, "reported"),
        "50 % of all channels gone, stage_shared": (0.50, "stage_shared", 1, "reported"),
        "75 % of all channels gone, stage_shared": (0.75, "stage_shared", 1, "reported"),
        "50 % of all channels gone, per_block": (0.50, "per_block", 1, "reported"),
        "75 % of all channels gone, per_block": (0.75, "per_block", 1, "reported"),
    }
    pruned = {
        name: _pruned(gone, residual=residual, round_to=round_to)
        for name, (gone, residual, round_to, _) in cases.items()
    }
    fresh = {f"new: {name}": _fresh(learner.network) for name, learner in pruned.items() if "per_block" not in name}
    dense = _learner(_dense())
    batch = _batch()
    learners = {"dense": dense}
    for name, learner in pruned.items():  # what is compared closely comes one after the other
        learners[name] = learner
        if f"new: {name}" in fresh:
            learners[f"new: {name}"] = fresh[f"new: {name}"]
    flops = {name: forward_flops(one.network, RGB32) for name, one in learners.items()}
    repeats = {name: min(4, round(flops["dense"] / count)) for name, count in flops.items()}  # similar times
    variants = {name: partial(_train, one, batch, steps=repeats[name]) for name, one in learners.items()}
    seconds = interleave(variants, rounds=rounds, clock=time.process_time)
    seconds = {name: [value / repeats[name] for value in values] for name, values in seconds.items()}
    noise = ", noisy" if spread(seconds["dense"]) > 1.5 else ""
    for name, (*_, goal) in cases.items():
        speed_up = ratio(seconds["dense"], seconds[name])
        saved = flops["dense"] / flops[name]
        values = {key: value / saved for key, value in speed_up.items()}
        note = f"{speed_up['ratio']:.2f}x as fast with {saved:.2f}x fewer FLOPs{noise}"
        yield row(f"{name}: speed-up / FLOPs ratio (P9)", values, goal=goal, note=note)
    for name in fresh:
        widths = name.removeprefix("new: ")
        values = ratio(seconds[name], seconds[widths])
        note = f"speed of the pruned network over that of one built with these widths{noise}"
        yield row(f"{widths}: against a new one (P9)", values, goal=">= 0.98", note=note)


def events(*, rounds: int) -> Iterator[dict[str, Any]]:
    """P10: the cost of one pruning event, with the forward passes of the scan apart, as these grow with the samples."""
    batch = _batch(128)
    learner = _learner(_dense())
    units = units_of(learner.network)
    waiting: list[Learner] = []

    def prepare() -> None:
        made = _learner(_dense())
        _train(made, _batch(2))
        made.attach_surgeon(units)
        waiting.append(made)

    def remove() -> None:
        made = waiting.pop()
        made.remove(_drawn(units, 0.3))
        Cost.of(made.network, RGB32, units)

    @torch.no_grad()
    def forward() -> None:
        learner.network.eval()
        learner.network(batch[0])

    def scan() -> None:
        find_dead(learner.network, units, [batch[0]], settings=DeathSettings(), runtime=RUNTIME)

    variants = {"prepare": prepare, "remove": remove, "forward": forward, "scan": scan}
    seconds = interleave(variants, rounds=rounds, clock=time.process_time)
    name = "removal of 30 % of all units, with optimizer state and FLOPs (P10)"
    yield row(name, middle(seconds["remove"]), goal="<= 0.5", unit="s", note="without the scan's forward passes")
    each = f"{1000 / 128 * statistics.median(seconds['scan']):.1f} s for 1,000 images"
    yield row(
        "scan for dead units / plain forward passes (P10)",
        ratio(seconds["scan"], seconds["forward"]),
        goal="<= 1.1x",
        note=each,
    )


def runs(*, rounds: int) -> Iterator[dict[str, Any]]:
    """P10: a short run of DemP on digits over the same run of dense training, one seed a round.

    Widths are four times those of the smoke run: layers of 8 to 32 channels do not get faster when they lose some.
    """
    from robustlab.config.compose import compose
    from robustlab.engine.run import run_one
    from robustlab.report.collect import collect
    from robustlab.report.pruning_columns import COLUMNS, SPEED_UP, SPEED_UP_NET, with_pruning

    neurons = COLUMNS[0]
    found: dict[Any, list[float]] = {SPEED_UP: [], SPEED_UP_NET: [], neurons: []}
    for seed in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for method in ("dense", "demp"):
                overrides = [*DIGITS, f"method={method}", f"seed={seed}", f"paths.output_dir={folder}"]
                cpu = mock.patch.object(time, "perf_counter", time.process_time)  # what the engine takes the time by
                with contextlib.redirect_stdout(io.StringIO()), cpu:
                    run_one(compose(overrides), overrides)
            (demp,) = (one for one in with_pruning(collect(Path(folder))).entries if one.group.method == "demp")
            for column, values in found.items():
                values.append(demp.further[column].mean)
    gone = f"{100 * statistics.median(found[neurons]):.0f} % of 928 units gone at the end, 299 updates"
    for column, name in ((SPEED_UP_NET, "without its checks and surgery"), (SPEED_UP, "with them")):
        yield row(f"dense / DemP on digits, {name} (P10)", middle(found[column]), goal="> 1", note=gone)


def run(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the benchmark; `quick` takes about four minutes of a core."""
    torch.set_num_threads(1)
    rounds = 5 if quick else 15
    parts: tuple[Callable[..., Iterator[dict[str, Any]]], ...] = (steps, events, runs)
    return [line for part in parts for line in part(rounds=rounds if part is not runs else 2 if quick else 5)]
