"""List the metrics that a run will measure, before its first step."""

from __future__ import annotations

from typing import Any

from robustlab.config.metric import not_measured
from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.engine.evaluate import TOP5_CLASSES
from robustlab.engine.method import Method


def evaluated_names(method: Method, data: Data, *, by_class: bool) -> set[str]:
    """Return the metrics that a run's evaluations may measure, except those of a method's individual parts."""
    names: set[str] = set()
    concepts = type(method).surrogate_groups is not Method.surrogate_groups  # they may only be found during training
    for split in data.evaluation_splits:
        grouped = data.attributes(split) is not None
        own = {"accuracy", "loss"} | ({"accuracy_top5"} if data.task.num_classes >= TOP5_CLASSES else set())
        own |= {"worst_class", "balanced_accuracy"} if by_class or grouped or concepts else set()
        own |= {"inferred_worst"} if concepts else set()
        if grouped:
            own |= {"balanced_group_avg", "worst_group", "worst_group_low", "worst_group_high", "adjusted_avg"}
            own |= {f"class/{name}" for name in data.task.label_names}
            own |= {f"group/{name}" for name in data.task.group_names}
        names |= {f"{split}/{name}" for name in own}
    return names | set(data.derived_metrics(dict.fromkeys(names, 0.5)))


def check_metric(metric: Any, method: Method, data: Data, *, by_class: bool) -> None:
    """Raise ConfigError if the run will not measure `optimized_metric`, as far as that is known before training.

    A method's own metrics (`train/...`, `diagnostics/...`) and those of its parts are only known once it trains.
    """
    name = None if metric is None else metric.name
    if name is None or name.partition("/")[0] not in {*data.evaluation_splits, "val", "test"}:
        return
    names = evaluated_names(method, data, by_class=by_class)
    of_a_part = type(method).predictions is not Method.predictions and name.count("/") == 2
    if name not in names and not (of_a_part and name.rpartition("/")[2] in ("accuracy", "loss", "accuracy_top5")):
        raise ConfigError(not_measured(name, names))
