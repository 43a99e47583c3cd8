"""Measure how much faster a pruned network predicts than the unpruned one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab.core import rng

WARM_UP, RUNS = 20, 100
BATCH_SIZES = (1, 256)


@dataclass(frozen=True)
class SpeedUp:
    """Median wall-clock seconds of one forward pass of a batch, for the unpruned (dense) and the pruned network."""

    batch_size: int
    dtype: str
    device: str
    dense_seconds: float
    pruned_seconds: float

    @property
    def ratio(self) -> float:
        """Dense time over pruned time; above 1 the pruned network is faster."""
        return self.dense_seconds / self.pruned_seconds


def inference_speed_up(
    dense: nn.Module,
    pruned: nn.Module,
    image_shape: Sequence[int],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    runs: int = RUNS,
    warm_up: int = WARM_UP,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
) -> list[SpeedUp]:
    """Return the latency ratio for each batch size: medians of `runs` runs, after `warm_up` uncounted ones.

    Both networks are moved to `device` and `dtype` in eval mode and run alternately, so that a slowdown of the machine
    affects both. Each run includes waiting for the device.

    - image_shape: (C, H, W).
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    networks = {"dense": dense, "pruned": pruned}
    for network in networks.values():
        network.to(device=device, dtype=dtype).to(memory_format=layout)  # type: ignore[call-overload]
        network.eval()
    found = []
    for batch_size in batch_sizes:
        drawn = torch.randn(batch_size, *image_shape, generator=rng.generator(rng.fold(0, "latency")))
        images = drawn.to(device=device, dtype=dtype, memory_format=layout)
        seconds = _alternate(networks, images, runs=runs, warm_up=warm_up)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        name = str(dtype).removeprefix("torch.")
        found.append(SpeedUp(batch_size, name, str(images.device), medians["dense"], medians["pruned"]))
    return found


@torch.inference_mode()
def _alternate(networks: Mapping[str, nn.Module], images: Tensor, *, runs: int, warm_up: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for number in range(warm_up + runs):
        for name, network in networks.items():
            _synchronise(images.device)
            started = time.perf_counter()
            network(images)
            _synchronise(images.device)
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
