"""Measure the gain from keeping freed memory in the process: training steps with and without, in separate processes."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.timing import ratio, row
from robustlab.config.build import build
from robustlab.config.compose import compose
from robustlab.core.memory import keep_freed_memory


def _seconds(keep: bool) -> float:
    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    cfg = compose(["model=small_cnn", "model.widths=[32,64,128,256]"])
    network = build(cfg.model, num_classes=10, image_shape=(3, 32, 32))
    images, targets = torch.randn(256, 3, 32, 32), torch.arange(256) % 10
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    started = 0.0
    for step in range(8):
        if step == 2:
            started = time.perf_counter()
        F.cross_entropy(network(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started


def run(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the ratio of the step times, glibc's default over ours."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    context = multiprocessing.get_context("spawn")
    for _ in range(2 if quick else 4):
        for keep in (False, True):
            with context.Pool(1) as pool:
                seconds[keep].append(pool.apply(_seconds, (keep,)))
    values = ratio(seconds[False], seconds[True])
    name = "training step, glibc's default / freed memory kept"
    return [row(name, values, goal="> 1", note="small CNN, 32x32, batch 256")]
