"""P1, P2, the data half of P3, and P15: batched augmentation against Pillow, torchvision and a DataLoader.

All variants crop, flip and normalise 32x32 colour images with independent draws for each sample, take turns in rounds,
and are compared per image: by the wall clock and by CPU seconds (workers counted).
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torchvision import transforms

from benchmarks import pillow
from benchmarks.timing import ratio, row, spread
from robustlab.core import rng
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.run_data import Data
from robustlab.data.transforms.augment import Flip, PadCrop, normalize
from robustlab.data.transforms.policies import AutoAugment, RandAugment, TrivialAugment
from robustlab.data.transforms.transform import Pipeline, Transform, single_thread

BATCH = 256


@dataclass
class Variant:
    """A way to prepare `images` images. After `measure`: seconds per image in each round."""

    images: int
    run: Callable[[], object]

    def __post_init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the workers that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(variants: Mapping[str, Variant], *, rounds: int) -> None:
    """Run every variant once in each round, after one round that does not count."""
    for number in range(rounds + 1):
        for variant in variants.values():
            wall, cpu = time.perf_counter(), _cpu_seconds()
            variant.run()
            if number:
                variant.wall.append((time.perf_counter() - wall) / variant.images)
                variant.cpu.append((_cpu_seconds() - cpu) / variant.images)


class _Images(DataSource):
    """Random images shaped like CIFAR-10."""

    def __init__(self, count: int) -> None:
        self.task = TaskSpec(10, (3, 32, 32), *pillow.NORMALIZE)
        self._count = count

    def split(self, name: str) -> Split:
        """Return the same images for any name."""
        return Split(pillow.random_images(self._count), torch.arange(self._count) % 10)


def _loader(count: int, *views: str) -> Variant:
    """Return the project's own loader, several times over resident images: `count` samples or a little less."""
    weak: list[Transform] = [PadCrop(4), Flip()]
    resident = min(count, 4096)
    data = Data(_Images(resident), seed=0, views={"weak": weak, "strong": [*weak, AutoAugment()]}, device="cpu")
    loader = data.loader(batch_size=BATCH, views=views, purpose="benchmark")

    def run() -> None:
        for _ in loader.epoch(0, steps=count // BATCH):
            pass

    return Variant(count // BATCH * BATCH, run)


def _batched(policy: Transform, size: int, count: int) -> Variant:
    """Return crop, flip, policy and normalisation of batches of `size`."""
    images, chain = pillow.random_images(size), Pipeline([PadCrop(4), Flip(), policy])
    index = torch.arange(size)

    def run() -> None:
        for key in range(count // size):
            with single_thread():
                normalize(chain(images, rng.uniform(key, index, chain.draws)), *pillow.NORMALIZE)

    return Variant(count // size * size, run)


def _served(count: int, *views: Any, workers: int = 0) -> Variant:
    images = pillow.random_images(count)
    return Variant(count, lambda: pillow.serve(images, views, batch=BATCH, workers=workers))


def _noise(base: Variant) -> str:
    """Return a warning where the base variant's rounds differ too much to judge."""
    return "noisy" if spread(base.wall) > 1.5 else ""


def _rate(variant: Variant) -> str:
    return f"{1 / statistics.median(variant.wall):,.0f}"


def weak_views(*, count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """P1: our loader against the best of a DataLoader with 0, 1 and 2 workers."""
    ours = _loader(64 * count, "weak")
    theirs = {f"{workers} workers": _served(count, pillow.pipeline(), workers=workers) for workers in (0, 1, 2)}
    measure({"ours": ours, **theirs}, rounds=rounds)
    for kind, goal in (("wall", ">= 15x"), ("cpu", ">= 20x")):
        best = min(theirs, key=lambda name: statistics.median(getattr(theirs[name], kind)))
        values = ratio(getattr(theirs[best], kind), getattr(ours, kind))
        note = f"{_rate(ours)} images/s against {_rate(theirs[best])} with {best} {_noise(theirs[best])}"
        name = "weak view, by the clock (P1)" if kind == "wall" else "weak view, per CPU second (P1)"
        yield row(name, values, goal=goal, note=note)


def strong_views(*, count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """P2: policies in batches of 256 and 2048 against Pillow, each including crop, flip and normalisation."""
    policies: dict[str, tuple[Transform, Any]] = {
        "CIFAR-10 policy": (AutoAugment(), transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)),
        "CIFAR-10 policy, lean Pillow": (AutoAugment(), pillow.LeanPolicy()),
        "RandAugment": (RandAugment(), transforms.RandAugment()),
        "TrivialAugment": (TrivialAugment(), transforms.TrivialAugmentWide()),
    }
    for name, (ours, theirs) in policies.items():
        batched = {size: _batched(ours, size, 16 * count) for size in (BATCH, 8 * BATCH)}
        base = _served(count, pillow.pipeline(theirs))
        measure({"base": base, **{str(size): variant for size, variant in batched.items()}}, rounds=rounds)
        for size, goal in ((BATCH, ">= 8x"), (8 * BATCH, ">= 10x")):
            note = f"{_rate(batched[size])} images/s against {_rate(base)} {_noise(base)}"
            yield row(f"{name}, batches of {size} (P2)", ratio(base.cpu, batched[size].cpu), goal=goal, note=note)


def crosssplit_views(*, count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """P3: two weak and two strong views of each sample, our loader against a DataLoader as in the released code."""
    ours = _loader(8 * count, "weak", "weak", "strong", "strong")
    weak, strong = pillow.pipeline(), pillow.pipeline(pillow.LeanPolicy())
    base = _served(count, weak, weak, strong, strong)
    measure({"ours": ours, "base": base}, rounds=rounds)
    note = f"lean Pillow policy, 0 workers; {_rate(ours)} samples/s against {_rate(base)} {_noise(base)}"
    yield row("CrossSplit's four views (P3)", ratio(base.wall, ours.wall), goal=">= 8x", note=note)


@contextmanager
def _neighbours() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes that keep all CPUs but one busy (at least one process), stopped for the time being."""
    number = max(1, len(os.sched_getaffinity(0)) - 1)
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        for process in running:
            process.send_signal(signal.SIGSTOP)
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def with_neighbour(*, count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """P15: the loader's rate while all other CPUs are busy, over its rate while they are not."""
    for view in ("weak", "strong"):
        quiet = _loader(32 * count, view)
        with _neighbours() as processes:

            def signal_all(number: signal.Signals, processes: list[subprocess.Popen[bytes]] = processes) -> None:
                for process in processes:
                    process.send_signal(number)

            def disturbed(run: Callable[[], object] = quiet.run, signal_all: Any = signal_all) -> None:
                signal_all(signal.SIGCONT)
                run()
                signal_all(signal.SIGSTOP)

            busy = Variant(quiet.images, disturbed)
            measure({"quiet": quiet, "busy": busy}, rounds=rounds)
        note = f"{_rate(busy)} images/s against {_rate(quiet)} {_noise(quiet)}"
        yield row(f"{view} view beside busy CPUs (P15)", ratio(quiet.wall, busy.wall), goal=">= 0.5x", note=note)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the benchmark; `quick` takes under half a minute."""
    count, rounds = (512, 3) if quick else (1024, 5)
    parts = (weak_views, strong_views, crosssplit_views, with_neighbour)
    return [line for part in parts for line in part(count=count, rounds=rounds)]
