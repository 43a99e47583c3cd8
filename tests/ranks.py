"""The processes of runs on several ranks."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch.distributed as dist

PRELOADED = ("torchmetrics.classification", "sklearn.cluster")
"""What most ranks import, which takes seconds."""


def run_ranks(work: Callable[..., None], places: Sequence[tuple[int, int]], *more: Any, timeout: float = 500) -> None:
    """Call `work(rank, world_size, *more)` in a process for each place, side by side; all of them must succeed.

    They are forked from a server, and so end without the destructors of libraries, of which some abort at times.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, *PRELOADED])
    processes = [context.Process(target=work, args=(*place, *more)) for place in places]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    codes = {place: process.exitcode for place, process in zip(places, processes, strict=True)}
    assert codes == dict.fromkeys(places, 0)


@contextlib.contextmanager
def joined(rank: int, world_size: int, folder: str) -> Iterator[None]:
    """Join the other ranks for the length of the block; one rank alone joins nobody."""
    if world_size == 1:
        yield
        return
    meeting = f"file://{folder}/meeting{world_size}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    yield
    dist.destroy_process_group()
