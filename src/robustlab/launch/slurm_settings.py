"""Check `hydra.launcher` of a SLURM sweep and translate it for submitit."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from robustlab.config.check import refuse
from robustlab.config.kinds import MISSING, Range
from robustlab.config.schema import AtLeastOne, Positive, Word
from robustlab.config.static.typehints import from_dataclass
from robustlab.core.errors import ClusterError, ConfigError
from robustlab.core.invocation import extra_hint, hint

_SHARED = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name")
_SHARED += ("stderr_to_stdout",)  # submitit has these for every kind of executor; the others are SLURM's own


@dataclass
class SlurmSettings:
    """Group `hydra.launcher`: the keys of Hydra's submitit plugin, and `pack`."""

    title: ClassVar = "hydra.launcher"
    _target_: str
    timeout_min: AtLeastOne
    signal_delay_s: AtLeastOne
    max_num_timeout: Annotated[int, Range(low=0)]
    array_parallelism: AtLeastOne
    pack: AtLeastOne = 1
    account: Word | None = None
    partition: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    exclude: Word | None = None
    comment: Word | None = None
    gres: Word | None = None
    nodes: AtLeastOne = 1
    tasks_per_node: AtLeastOne = 1
    gpus_per_node: Annotated[int, Range(low=0)] | Word | None = None
    gpus_per_task: AtLeastOne | None = None
    cpus_per_task: AtLeastOne | None = None
    cpus_per_gpu: AtLeastOne | None = None
    mem_gb: Positive | None = None
    mem_per_gpu: Word | None = None
    mem_per_cpu: Word | None = None
    name: Word = "train"
    stderr_to_stdout: bool = False
    setup: list[str] | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    submitit_folder: Word | None = None


def slurm_settings(launcher: Any) -> dict[str, Any]:
    """Return the plain settings of a composed `hydra.launcher`, checked.

    Raises ConfigError for wrong settings, and if the packages for submitting jobs are missing.
    """
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(launcher, resolve=True)
    assert isinstance(plain, dict)
    unset = [key for key, value in plain.items() if value == MISSING]
    refuse([f"hydra.launcher.{key}: required but not set; add hydra.launcher.{key}=<value>" for key in unset])
    refuse(list(from_dataclass(SlurmSettings).check(plain, "hydra.launcher")))
    settings = {str(key): value for key, value in plain.items()}
    if settings.get("nodes", 1) > 1 or settings.get("tasks_per_node", 1) > 1:
        raise ConfigError(
            "hydra.launcher.nodes, tasks_per_node: a sweep's runs have one process each; for a run over several GPUs "
            "or nodes take slurm/multi_node.sh, for several runs on one node hydra.launcher.pack"
        )
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError(
            f"hydra/launcher=slurm needs the extra 'cluster', which is not installed; run: {extra_hint('cluster')}"
        )
    return settings


def need_slurm() -> None:
    """Raise ClusterError if jobs cannot be submitted from here."""
    missing = [name for name in ("sbatch", "srun", "scontrol", "squeue") if shutil.which(name) is None]
    if missing:
        raise ClusterError(
            f"there is no {', '.join(missing)} here: submit on a login node of the cluster, see what would be "
            f"submitted with `{hint('submit', '--dry-run')}`, or leave hydra/launcher out to run here"
        )


def submitit_parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as `submitit.AutoExecutor.update_parameters` takes them; what is null is left out."""
    own = ("_target_", "pack", "max_num_timeout", "submitit_folder")
    given = {key: value for key, value in settings.items() if key not in own and value is not None}
    return {key if key in _SHARED else f"slurm_{key}": value for key, value in given.items()}


def gpus_per_job(settings: Mapping[str, Any]) -> int:
    """Return how many GPUs a job asks for, as far as its settings tell (`gres=gpu:a100:2`, `gpus_per_node=4`)."""
    for key in ("gpus_per_node", "gpus_per_task", "gres"):
        text = str(settings.get(key) or "")
        last = text.rpartition(":")[2]
        if text and (key != "gres" or text.startswith("gpu")):
            return int(last) if last.isdigit() else 1
    return 0
