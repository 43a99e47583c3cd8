"""Find out which process of a run this one is, from the variables set by torchrun or by SLURM's `srun`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from robustlab.core.errors import ConfigError


@dataclass(frozen=True)
class World:
    """The position of this process: `rank` of `size` overall, `local_rank` of `local_size` on its node.

    - cpus: CPUs that SLURM gives each process of the node; None if the processes share the node's CPUs.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    cpus: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> World:
        """Read the variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE), or else those of srun.

        The tasks of a SLURM step form one run only if MASTER_ADDR and MASTER_PORT are set; otherwise each task is a
        separate run, as when several runs are packed into one job.

        Raises ConfigError if only one of the two is set.
        """
        values = os.environ if environment is None else environment
        if "WORLD_SIZE" in values:
            size = _number(values, "WORLD_SIZE")
            return cls(
                rank=_number(values, "RANK", None if size > 1 else 0),
                size=size,
                local_rank=_number(values, "LOCAL_RANK", 0),
                local_size=_number(values, "LOCAL_WORLD_SIZE", 1),
            )
        tasks = _number(values, "SLURM_STEP_NUM_TASKS", 1)  # of the step: srun's; the job may have more
        if tasks == 1 or "MASTER_ADDR" not in values:
            return cls()
        if "MASTER_PORT" not in values:
            raise ConfigError("MASTER_ADDR is set for a run of several tasks, but MASTER_PORT is not; export both")
        per_node = _tasks_per_node(values.get("SLURM_STEP_TASKS_PER_NODE", str(tasks)))
        cpus = _number(values, "SLURM_CPUS_PER_TASK", 0)
        return cls(
            rank=_number(values, "SLURM_PROCID"),
            size=tasks,
            local_rank=_number(values, "SLURM_LOCALID"),
            local_size=per_node[min(_number(values, "SLURM_NODEID", 0), len(per_node) - 1)],
            cpus=cpus or None,
        )

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0


def _number(values: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = values.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"\d+", text):
        raise ConfigError(
            f"environment variable {name}={text or ''} is not a number; start the processes of a run with torchrun or "
            "srun, which set it"
        )
    return int(text)


def _tasks_per_node(text: str) -> list[int]:
    """Read SLURM's "4(x2),3" as [4, 4, 3]."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ConfigError(f"environment variable SLURM_STEP_TASKS_PER_NODE={text} cannot be parsed")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts
