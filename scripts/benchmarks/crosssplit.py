"""P4 and the cost of a CrossSplit epoch: random 32x32 images, ResNet-8, everything resident.

Per labelled sample an epoch after warm-up needs 15 forwards' worth of arithmetic (a backward counts as two) and the
pass for the extrema one more: 16 over both networks' halves, against 3 for a supervised epoch of one network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import interleave, ratio, row, spread
from robustlab.config.build import build
from robustlab.config.compose import compose
from robustlab.core.memory import keep_freed_memory
from robustlab.core.runtime import Runtime
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.run_data import Data
from robustlab.engine.build_method import build_method
from robustlab.engine.method import Method, Position

BATCH = 256
FORWARD_EQUIVALENTS = 16


class RandomImages(DataSource):
    """`samples` random images with random labels, shaped like CIFAR-10."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.task = TaskSpec(10, (3, 32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    def split(self, name: str) -> Split:
        """Return the same random images for any name."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (self.samples, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return Split(images, torch.arange(self.samples) % 10)


def _method(name: str, samples: int, runtime: Runtime) -> Method:
    overrides = [f"method={name}", "dataset=cifar10", "model=resnet8", f"trainer.batch_size={BATCH}"]
    if name == "crosssplit":
        overrides += ["method.warmup.epochs=1", "trainer.epochs=100"]
    cfg = compose(overrides)
    views = {view: [build(node) for node in nodes] for view, nodes in cfg.dataset.views.items()}
    data = Data(RandomImages(samples), seed=0, views=views, channels_last=runtime.channels_last)
    return build_method(cfg, data, runtime)


def _epoch(method: Method, stage_number: int) -> Callable[[], object]:
    stage = list(method.stages())[stage_number]

    def train() -> None:
        for step, item in enumerate(method.batches(stage, 30, 0)):
            method.train_step(item, Position(stage.name, 30, step, step))

    return train


def _bare_step(method: Method, images: Tensor, targets: Tensor) -> Callable[[], object]:
    learner = method.learners["network"]

    def step() -> None:
        for _ in range(4):
            learner.network.train()
            learner.step(F.cross_entropy(learner(images), targets))

    return step


def run(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the ratios of a CrossSplit epoch to a supervised one and to its arithmetic at the bare network's rate."""
    keep_freed_memory()  # as every run on a CPU does
    samples = 1024 if quick else 2048
    runtime = Runtime(torch.device("cpu"), channels_last=True)
    crosssplit, erm = _method("crosssplit", samples, runtime), _method("erm", samples, runtime)
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    targets = torch.arange(BATCH) % 10
    seconds = interleave(
        {
            "crosssplit": _epoch(crosssplit, 1),
            "supervised": _epoch(erm, 0),
            "bare": _bare_step(erm, images, targets),
        },
        rounds=3 if quick else 5,
    )
    note = f"ResNet-8, batch {BATCH}, {samples} images, {torch.get_num_threads()} threads"
    if spread(seconds["bare"]) > 1.5:
        note += "; noisy: the bare step varied by more than 1.5x"
    floor = [value / (4 * BATCH) / 3 * FORWARD_EQUIVALENTS * samples for value in seconds["bare"]]
    against = ratio(seconds["crosssplit"], seconds["supervised"])
    return [
        row("CrossSplit epoch / supervised epoch of one network", against, goal="<= 6.5", note=note),
        row("CrossSplit epoch / its 16 forwards per sample", ratio(seconds["crosssplit"], floor), goal="<= 1.10"),
    ]
