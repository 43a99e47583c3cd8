"""Which of several processes of a run this one is: told by torchrun, or by SLURM to the tasks of `srun`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from robustlab.core.errors import ConfigError


@dataclass(frozen=True)
class World:
    """The place of this process: `rank` of `size` in all, `local_rank` of `local_size` on its node.

    cpus: how many CPUs SLURM gives to each of the node's processes; None where they share what the node has.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    cpus: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> World:
        """Read what torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE), else what srun does.

        The tasks of a step of SLURM form one run only where MASTER_ADDR and MASTER_PORT say where they meet: without,
        each is a run of its own, as for several runs packed into one job. Raises ConfigError for half of it.
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
            raise ConfigError("MASTER_ADDR is set for a run of several tasks, and MASTER_PORT is not; export both")
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
            f"the environment says {name}={text or ''}, which is no number: processes of one run are started by "
            "torchrun or srun, which set it"
        )
    return int(text)


def _tasks_per_node(text: str) -> list[int]:
    """Read SLURM's "4(x2),3" as [4, 4, 3]."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ConfigError(f"the environment says SLURM_STEP_TASKS_PER_NODE={text}, which nobody can read")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts
