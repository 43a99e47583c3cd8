"""Find settings that contradict each other. To add a rule, write a function and append it to `RULES`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustlab.config.metric import metric_can_be_measured
from robustlab.config.schedules import schedule_fits_run
from robustlab.config.wording import did_you_mean
from robustlab.core.checks import MEASURES, floor_problem, target_problem
from robustlab.core.errors import RunFolderError

Rule = Callable[[Mapping[str, Any]], list[str]]
"""Takes the plain, resolved configuration, whose keys and types are already checked; returns messages."""


def selection_needs_validation(cfg: Mapping[str, Any]) -> list[str]:
    """`best_noisy_val` selects on a validation split."""
    trainer, dataset = cfg["trainer"], cfg["dataset"]
    if "best_noisy_val" in trainer["selection"] and dataset["val_fraction"] == 0:
        return ["trainer.selection: best_noisy_val needs a validation split; set dataset.val_fraction, e.g. to 0.1"]
    return [] if trainer["selection"] else ["trainer.selection: empty; name at least one rule, e.g. [last]"]


def warmup_ends_before_training(cfg: Mapping[str, Any]) -> list[str]:
    """A warm-up must not take up all epochs."""
    warmup, total = cfg["method"].get("warmup"), cfg["trainer"]["epochs"]
    epochs = warmup.get("epochs") if isinstance(warmup, Mapping) else cfg["method"].get("warmup_epochs")
    if isinstance(epochs, int) and epochs >= total:
        key = "method.warmup.epochs" if isinstance(warmup, Mapping) else "method.warmup_epochs"
        return [
            f"{key}: {epochs} warm-up epochs use up all of trainer.epochs={total}; lower the first or raise the second"
        ]
    return []


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


def pruning_target_is_one(cfg: Mapping[str, Any]) -> list[str]:
    """The amount to prune is given by exactly one measure."""
    target = cfg["method"].get("target")
    if not isinstance(target, Mapping) or not set(target) <= set(MEASURES):
        return []
    problem = target_problem(target)
    return [] if problem is None else [problem]


def floor_fits_surgery(cfg: Mapping[str, Any]) -> list[str]:
    """A layer's penalty must stop before surgery stops at `min_width`."""
    reg, surgery = cfg["method"].get("reg"), cfg["method"].get("surgery")
    if not isinstance(reg, Mapping) or not isinstance(surgery, Mapping):
        return []
    least, enabled = surgery.get("min_width", 1), surgery.get("enabled", True)
    problem = floor_problem(reg.get("floor"), min_width=least, enabled=enabled)
    return [] if problem is None else [problem]


def frozen_features_have_no_places(cfg: Mapping[str, Any]) -> list[str]:
    """CoBalT's first stage needs spatial positions, which pooled features lack."""
    method = cfg["method"]
    if not cfg.get("features") or not method["_target_"].endswith(".CoBalT") or method.get("artifact"):
        return []
    return [
        "method.artifact: stage 1 of CoBalT needs images, but features=frozen gives only pooled features; use the "
        "concepts of a run without it, method.artifact=<its folder>/concepts.pt, or leave features=frozen out"
    ]


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
    warmup_ends_before_training,
    schedule_fits_run,
    precision_fits_device,
    noise_fits_dataset,
    pruning_target_is_one,
    floor_fits_surgery,
    frozen_features_have_no_places,
    compare_names_a_method,
    run_dir_is_inside_output_dir,
    metric_can_be_measured,
]


def refuse_unwritable(settings: Mapping[str, Any]) -> None:
    """Raise RunFolderError unless the nearest existing parent folder is writable."""
    place = Path(settings["paths"]["run_dir"]).expanduser().absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise RunFolderError(f"{place} is a file, not a folder; choose another place with paths.output_dir=...")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunFolderError(f"the folder {place} is not writable; choose another place with paths.output_dir=...")
