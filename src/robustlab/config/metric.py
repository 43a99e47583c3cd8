"""Read and check `optimized_metric`, the number by which a search sweeper judges a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlab.config.static.classes import own_attribute
from robustlab.config.wording import did_you_mean, show
from robustlab.core.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

EVALUATED = (
    "accuracy", "loss", "accuracy_top5", "worst_class", "balanced_accuracy", "balanced_group_avg", "worst_group",
    "worst_group_low", "worst_group_high", "adjusted_avg", "inferred_worst",
)  # fmt: skip
"""Metrics of an evaluated split, besides accuracies of single classes and groups, and gaps."""

_NOT_SPLITS = ("train", "diagnostics")
"""Prefixes of metrics that are not evaluations: training means over an epoch, and a method's own metrics."""

_EXAMPLE = "optimized_metric.name=val/accuracy optimized_metric.mode=max"


@dataclass(frozen=True)
class Metric:
    """A metric in a run's results, to be maximized ("max") or minimized ("min")."""

    name: str
    mode: str

    def better(self, one: float, other: float) -> bool:
        """Return whether the value `one` is better than `other`."""
        return one > other if self.mode == "max" else one < other


def searches(sweeper: Any) -> bool:
    """Return whether a sweeper (the node `hydra.sweeper`) chooses points based on the results of earlier ones."""
    return not str(sweeper.get("_target_")).endswith(".BasicSweeper")


def metric_to_optimize(sweeper: Any, cfg: DictConfig) -> Metric | None:
    """Return the metric that a composed configuration's sweeper optimizes; None if its sweeper does not search.

    Raises ConfigError if no metric is named, or the sweeper searches in the opposite direction.
    """
    if not searches(sweeper):
        return None
    chosen = cfg.get("optimized_metric")
    if not chosen or not chosen.get("name"):
        raise ConfigError(
            f"{sweeper._target_.rpartition('.')[2]} searches by a number that each run returns, but optimized_metric "
            f"names none; add e.g. {_EXAMPLE} (with dataset.val_fraction=0.1 if the data has no validation split)"
        )
    metric = Metric(str(chosen.name), str(chosen.get("mode") or "max"))
    found = _direction(sweeper)
    if found is None:
        return metric
    key, maximize, change = found
    if maximize is None:
        raise ConfigError(f"{key}: optimized_metric is one number, but the sweeper expects several; name one direction")
    if maximize != (metric.mode == "max"):
        raise ConfigError(
            f"optimized_metric.mode={metric.mode} for {metric.name}, but the sweeper is set to "
            f"{'maximize' if maximize else 'minimize'}; add {change}, or set "
            f"optimized_metric.mode={'max' if maximize else 'min'}"
        )
    return metric


def _direction(sweeper: Any) -> tuple[str, bool | None, str] | None:
    """Return a sweeper's direction: the key that sets it, whether it maximizes, and the override that would reverse it.

    The second item is None if there are several directions; the result is None if the sweeper does not state any. Knows
    the keys of Hydra's plugins for Optuna, Nevergrad and Ax.
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
    """`optimized_metric.name` is `<split>/<metric>`, and the data set has the split."""
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
        return [f"{where}: evaluation does not measure '{rest}'{hint or '; it measures ' + ', '.join(EVALUATED)}"]
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
    """Return whether a metric is measured on a split meant for final evaluation, not for selection."""
    return metric.name.partition("/")[0] not in (*_NOT_SPLITS, "val")


def measured(cfg: DictConfig, metric: Metric) -> float:
    """Return the metric's value at the end of a finished run. Raises ConfigError if the run did not measure it."""
    path = Path(cfg.paths.run_dir).expanduser() / "results.json"
    final = json.loads(path.read_text(encoding="utf-8"))["final"]
    if metric.name not in final:
        raise ConfigError(f"{not_measured(metric.name, final)} ({path})")
    return float(final[metric.name])


def not_measured(name: str, names: Mapping[str, Any] | set[str]) -> str:
    """Return the error message for a metric that is not among `names`."""
    hint = did_you_mean(name, names) or f"; it measures {', '.join(sorted(names))}"
    return f"optimized_metric.name: this run does not measure '{name}'{hint}"
