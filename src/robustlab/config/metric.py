"""`optimized_metric`: the number by which a sweeper that searches judges a run, and whether the two agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlab.config.classes import own_attribute
from robustlab.config.wording import did_you_mean, show
from robustlab.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

EVALUATED = (
    "accuracy", "loss", "accuracy_top5", "worst_class", "balanced_accuracy", "balanced_group_avg", "worst_group",
    "worst_group_low", "worst_group_high", "adjusted_avg", "inferred_worst",
)  # fmt: skip
"""What an evaluation of a split may measure, beside the accuracies of single classes and groups, and gaps."""

_NOT_SPLITS = ("train", "diagnostics")
"""What metrics begin with that are no evaluation: means over an epoch of training, and what a method says of itself."""

_EXAMPLE = "optimized_metric.name=val/accuracy optimized_metric.mode=max"


@dataclass(frozen=True)
class Metric:
    """A metric in a run's results, and whether it is to be as large ("max") or as small ("min") as possible."""

    name: str
    mode: str

    def better(self, one: float, other: float) -> bool:
        """Tell whether the value `one` is to be preferred to `other`."""
        return one > other if self.mode == "max" else one < other


def searches(sweeper: Any) -> bool:
    """Tell whether a sweeper (the node `hydra.sweeper`) chooses points by what earlier ones returned."""
    return not str(sweeper.get("_target_")).endswith(".BasicSweeper")


def metric_to_optimize(sweeper: Any, cfg: DictConfig) -> Metric | None:
    """Return the metric of a composed configuration where its sweeper searches; None where no sweeper asks for one.

    Raises ConfigError where none is named, or the sweeper searches in the other direction.
    """
    if not searches(sweeper):
        return None
    chosen = cfg.get("optimized_metric")
    if not chosen or not chosen.get("name"):
        raise ConfigError(
            f"{sweeper._target_.rpartition('.')[2]} searches by a number that each run returns, and optimized_metric "
            f"names none; add e.g. {_EXAMPLE} (with dataset.val_fraction=0.1 where the data has no validation split)"
        )
    metric = Metric(str(chosen.name), str(chosen.get("mode") or "max"))
    found = _direction(sweeper)
    if found is None:
        return metric
    key, maximize, change = found
    if maximize is None:
        raise ConfigError(f"{key}: optimized_metric is one number, and the sweeper expects several; name one direction")
    if maximize != (metric.mode == "max"):
        raise ConfigError(
            f"optimized_metric.mode={metric.mode} for {metric.name}, but the sweeper is set to "
            f"{'maximize' if maximize else 'minimize'}; add {change}, or set "
            f"optimized_metric.mode={'max' if maximize else 'min'}"
        )
    return metric


def _direction(sweeper: Any) -> tuple[str, bool | None, str] | None:
    """Return the key by which a sweeper says its direction, whether that is to maximize, and the other spelling.

    None for the direction where there are several; None for all where the sweeper does not say. The keys are those of
    Hydra's plugins for Optuna, Nevergrad and Ax.
    """
    from omegaconf import OmegaConf

    for key, words in (("direction", ("maximize", "minimize")), ("optim.maximize", (True, False)),
                       ("ax_config.experiment.minimize", (False, True))):  # fmt: skip
        value = OmegaConf.select(sweeper, key)
        if value is None:
            continue
        if OmegaConf.is_list(value):
            if len(value) != 1:
                return f"hydra.sweeper.{key}", None, ""
            value = value[0]
        value = getattr(value, "name", value)  # Optuna's is an enum unless it was set by hand
        if value not in words:
            raise ConfigError(f"hydra.sweeper.{key}: expected one of {words[0]}, {words[1]}, got {show(value)}")
        maximize = value == words[0]
        other = words[1] if maximize else words[0]
        return f"hydra.sweeper.{key}", maximize, f"hydra.sweeper.{key}={str(other).lower()}"
    return None


def metric_can_be_measured(cfg: Mapping[str, Any]) -> list[str]:
    """`optimized_metric.name` is `<split>/<what is measured>`, and the data set has the split."""
    chosen = cfg.get("optimized_metric")
    if not chosen or not chosen["name"]:
        return []
    name, dataset = chosen["name"], cfg["dataset"]
    split, _, rest = name.partition("/")
    where = f"optimized_metric.name: '{name}'"
    if not rest:
        names = [f"{part}/{measured}" for part in ("val", "test") for measured in EVALUATED]
        return [f"{where} is not <split>/<metric>{did_you_mean(f'val/{name}', names) or ', such as val/accuracy'}"]
    if split in _NOT_SPLITS:
        return []
    target = str(dataset["source"]["_target_"])
    if target.startswith("robustlab.") and "/" not in rest and rest not in EVALUATED and not rest.endswith("_gap"):
        hint = did_you_mean(name, [f"{split}/{measured}" for measured in EVALUATED])
        return [f"{where}: an evaluation measures no '{rest}'{hint or '; it measures ' + ', '.join(EVALUATED)}"]
    splits = own_attribute(target, "splits")
    if not isinstance(splits, tuple):
        return []
    there = [part for part in splits if part != "train"]
    if split == "val" and "val" not in there and dataset["val_fraction"] == 0:
        return [f"{where}: {dataset['name']} has no validation split; set dataset.val_fraction, e.g. to 0.1"]
    if split not in (*there, "val"):
        hint = did_you_mean(split, [*there, "val"]) or f"; it has {', '.join(there)}"
        return [f"{where}: {dataset['name']} has no split '{split}'{hint}"]
    return []


def selects_on_test(metric: Metric) -> bool:
    """Tell whether a metric is measured on a split that is there to judge the outcome, not to choose by."""
    return metric.name.partition("/")[0] not in (*_NOT_SPLITS, "val")


def measured(cfg: DictConfig, metric: Metric) -> float:
    """Return the metric's value at the end of a finished run. Raises ConfigError where the run has not measured it."""
    path = Path(cfg.paths.run_dir).expanduser() / "results.json"
    final = json.loads(path.read_text(encoding="utf-8"))["final"]
    if metric.name not in final:
        raise ConfigError(f"{not_measured(metric.name, final)} ({path})")
    return float(final[metric.name])


def not_measured(name: str, names: Mapping[str, Any] | set[str]) -> str:
    """Return the message for a metric that is not among `names`."""
    hint = did_you_mean(name, names) or f"; it measures {', '.join(sorted(names))}"
    return f"optimized_metric.name: this run does not measure '{name}'{hint}"
