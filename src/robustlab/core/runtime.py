"""Resolve where and how networks run: device, precision, memory format, threads and ranks."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustlab.core.devices import device_of
from robustlab.core.errors import ConfigError, PeerError
from robustlab.core.memory import keep_freed_memory
from robustlab.core.world import World

_AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


PEER_TIMEOUT = timedelta(minutes=10)
"""How long the processes of a run wait for one that hangs. Gloo notices at once when a process ends."""


def available_cpus(world: World) -> int:
    """Return the number of CPUs this process may use: SLURM's allocation, or else its share of the affinity mask."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if world.cpus is not None:
        return min(granted, world.cpus)
    return max(1, min(granted, int(os.environ.get("SLURM_CPUS_PER_TASK", granted))) // world.local_size)


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Return the precision to use on a device: "fp32", "bf16" or "fp16".

    "auto" means bf16 on GPUs with native support, else fp32: where bf16 is emulated (older GPUs, CPUs), autocast is
    slower than fp32, on a CPU about 3 times.

    Raises ConfigError for fp16 without a GPU.
    """
    on_gpu = device.type == "cuda"
    if wanted == "auto":
        return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if wanted == "fp16" and not on_gpu:
        raise ConfigError("trainer.precision=fp16 needs a GPU; use fp32 or bf16 on the CPU")
    return wanted


def wants_channels_last(trainer: Any) -> bool:
    """Return whether to use the channels-last memory format.

    "auto" means yes everywhere: small convolutional networks are up to 1.5 times faster even on a CPU.
    """
    return trainer.channels_last == "auto" or bool(trainer.channels_last)


@dataclass(frozen=True)
class Runtime:
    """The resolved choices of `trainer` that concern the machine."""

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    sync_batchnorm: bool = False
    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_config(cls, trainer: Any) -> Runtime:
        """Resolve `auto` values, join the other processes of the run (`World`), and set threads and determinism.

        Raises ConfigError for settings that this machine does not support, PeerError if other processes cannot be
        reached.
        """
        world = World.from_environment()
        name = trainer.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        device = device_of(name, "trainer.device=")
        if name == "cuda":
            device = torch.device("cuda", _local_gpu(world))
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        else:
            keep_freed_memory()
        if trainer.sync_batchnorm and world.size > 1 and not on_gpu:
            raise ConfigError("trainer.sync_batchnorm=true needs GPUs; on CPUs each process keeps its own statistics")
        if world.size > 1 and not dist.is_initialized():
            _join(world, device)
        cores = os.cpu_count() or 1
        if trainer.threads is not None and trainer.threads > cores:
            raise ConfigError(f"trainer.threads={trainer.threads}: this machine has {cores} cores; null uses them all")
        torch.set_num_threads(trainer.threads or available_cpus(world))
        _set_determinism(trainer.deterministic, on_gpu)
        precision = resolve_precision(trainer.precision, device)
        return cls(
            device,
            precision,
            wants_channels_last(trainer),
            trainer.compile,
            trainer.sync_batchnorm,
            world.rank,
            world.size,
        )

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context for forward passes and losses; losses are computed in float32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_AMP_DTYPES[self.precision])

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device in the chosen memory format; convert BatchNorm if ranks share statistics."""
        if self.sync_batchnorm and self.world_size > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        network = network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network  # type: ignore[call-overload]

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks (the tensor itself if there is only one)."""
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def any_rank(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank. Collective: every rank must call it at the same step."""
        if self.world_size == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    @contextlib.contextmanager
    def watching_peers(self) -> Iterator[None]:
        """Turn the error of a collective whose peer has died or hangs into PeerError."""
        try:
            yield
        except RuntimeError as error:
            if self.world_size > 1 and (isinstance(error, dist.DistError) or "/gloo/" in str(error)):
                raise PeerError(
                    f"process {self.rank} of {self.world_size} lost another process of this run, whose own message "
                    "says why; fix that and run the command again: it resumes from the last checkpoint"
                ) from error
            raise

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's (picklable) value, in rank order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()


def average_gradients(parameters: Iterable[nn.Parameter], world_size: int) -> None:
    """Replace each gradient by its mean over ranks, with one all-reduce per dtype.

    This replaces DistributedDataParallel: methods run several forwards before one backward, alternate between networks
    and remove channels during training, all of which conflicts with DDP's hooks and buckets.

    - parameters: the same ones must have a gradient on every rank.
    """
    groups: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:  # None on every rank if no step used the parameter
            groups.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in groups.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= world_size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


@torch.no_grad()
def average_statistics(networks: Iterable[nn.Module], *, runtime: Runtime) -> None:
    """Replace BatchNorm's running means and variances by their means over ranks.

    Each rank collects statistics of its own share of the batches; afterwards all ranks hold the same network.
    """
    if runtime.world_size == 1:
        return
    norms = [module for network in networks for module in network.modules() if isinstance(module, _BatchNorm)]
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    if not buffers:
        return
    mean = runtime.mean_over_ranks(torch.cat(buffers))
    for buffer, value in zip(buffers, mean.split([len(buffer) for buffer in buffers]), strict=True):
        buffer.copy_(value)


def _local_gpu(world: World) -> int:
    """Return the index of this process's GPU among the visible ones, of which there may be only one."""
    visible = torch.cuda.device_count()
    if 1 < visible < world.local_size:
        raise ConfigError(
            f"{world.local_size} processes on this node, but {visible} GPUs; start as many processes as there are GPUs"
        )
    return 0 if visible == 1 else world.local_rank


def _join(world: World, device: torch.device) -> None:
    on_gpu = device.type == "cuda"
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            rank=world.rank,
            world_size=world.size,
            timeout=PEER_TIMEOUT,
            device_id=device if on_gpu else None,
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise PeerError(
            f"process {world.rank} could not join the other {world.size - 1} at {where} "
            f"({str(error).splitlines()[0]}); MASTER_ADDR must name the node of process 0, MASTER_PORT a free port"
        ) from error
    atexit.register(dist.destroy_process_group)


def _set_determinism(wanted: bool, on_gpu: bool) -> None:
    if on_gpu:
        torch.backends.cudnn.benchmark = not wanted
        if wanted:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted, warn_only=on_gpu)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  costs time, hides nothing
