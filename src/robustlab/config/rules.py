"""Find settings that contradict each other. To add a rule, write a function and append it to `RULES`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robustlab.config.metric import metric_can_be_measured
from robustlab.config.schedules import schedule_fits_run
from robustlab.config.static.module_specs import find_spec
from robustlab.config.wording import did_you_mean
from robustlab.core.errors import RunFolderError

Rule = Callable[[Mapping[str, Any]], list[str]]
"""Takes the plain, resolved configuration, whose keys and types are already checked; returns messages."""


def selection_needs_validation(cfg: Mapping[str, Any]) -> list[str]:
    """`best_noisy_val` selects on a validation split."""
    trainer, dataset = cfg["trainer"], cfg["dataset"]
    if "best_noisy_val" in trainer["selection"] and dataset["val_fraction"] == 0:
        return ["trainer.selection: best_noisy_val needs a validation split; set dataset.val_fraction, e.g. to 0.1"]
    return [] if trainer["selection"] else ["trainer.selection: empty; name at least one rule, e.g. [last]"]


def precision_fits_device(cfg: Mapping[str, Any]) -> list[str]:
    """fp16 with loss scaling needs a GPU."""
    trainer = cfg["trainer"]
    if trainer["precision"] == "fp16" and trainer["device"] == "cpu":
        return ["trainer.precision: fp16 does not train on the CPU; use fp32 or bf16, or another trainer.device"]
    return []


def noise_fits_dataset(cfg: Mapping[str, Any]) -> list[str]:
    """Noise models that map between particular classes, or read label files, belong to one data set."""
    noise, dataset = cfg["noise"]["name"], cfg["dataset"]["name"]
    for owner in ("cifar100", "cifar10"):
        belongs = noise.endswith(owner) or f"{owner}_" in noise or noise.startswith(owner)
        if belongs:
            fits = dataset == owner or dataset.startswith(f"{owner}_")
            return [] if fits else [f"noise={noise} is defined on the classes of {owner}, not on dataset={dataset}"]
    return []


def compare_names_a_method(cfg: Mapping[str, Any]) -> list[str]:
    """`compare` names an option of the group `method`."""
    from robustlab.config.hydra_session import all_options, is_option

    if cfg["compare"] is None or is_option("method", cfg["compare"]):
        return []
    methods = all_options("method")
    if not methods:
        return []
    hint = did_you_mean(cfg["compare"], methods) or f"; there is {', '.join(methods)}"
    return [f"compare: there is no method '{cfg['compare']}'{hint}, or null for none"]


def run_dir_is_inside_output_dir(cfg: Mapping[str, Any]) -> list[str]:
    """No name, however odd, may lead out of the output folder."""
    output, run = (Path(cfg["paths"][key]).expanduser() for key in ("output_dir", "run_dir"))
    root, place = os.path.realpath(output), os.path.realpath(run)
    if place == root or os.path.commonpath([root, place]) != root:
        return [f"paths.run_dir: {run} is not inside paths.output_dir={output}; set paths.output_dir as well"]
    too_long = [part for part in run.parts if len(os.fsencode(part)) > 255]
    return (
        [f"paths.run_dir: a name in it exceeds the file system's limit of 255 bytes: {too_long[0][:40]}..."]
        if too_long
        else []
    )


RULES: list[Rule] = [
    selection_needs_validation,
    schedule_fits_run,
    precision_fits_device,
    noise_fits_dataset,
    compare_names_a_method,
    run_dir_is_inside_output_dir,
    metric_can_be_measured,
]


def rules_for(target: str) -> Iterator[Rule]:
    """Yield the rules that stand beside the class of a `_target_`.

    They are `RULES` of the module `<package>_rules` in the class's package and in each package above it, e.g. in
    robustlab/methods/pruning/pruning_rules.py. Such a module imports nothing that needs torch.
    """
    packages = target.split(".")[:-2]
    for end in range(len(packages), 0, -1):
        name = ".".join([*packages[:end], f"{packages[end - 1]}_rules"])
        if find_spec(name) is not None:
            yield from importlib.import_module(name).RULES


def refuse_unwritable(settings: Mapping[str, Any]) -> None:
    """Raise RunFolderError unless the nearest existing parent folder is writable."""
    place = Path(settings["paths"]["run_dir"]).expanduser().absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise RunFolderError(f"{place} is a file, not a folder; choose another place with paths.output_dir=...")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunFolderError(f"the folder {place} is not writable; choose another place with paths.output_dir=...")
