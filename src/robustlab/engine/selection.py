"""Selection rules: which epoch's metrics represent a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data

RULES = {
    "last": "the last epoch",
    "mean_last10": "mean over the last 10 evaluations",
    "best_noisy_val": "the epoch with the best accuracy on a validation split with noisy labels",
    "avg": "the epoch with the best average accuracy on the validation split",
    "ig": "the epoch with the best worst inferred group (without concepts: worst class) on the validation split",
    "hg": "oracle: the epoch with the best worst group on the validation split, which takes its group labels",
    "best_test": "oracle: the epoch with the best test accuracy, chosen on the test set",
}
_CRITERIA = {
    "best_noisy_val": ("val/accuracy",),
    "avg": ("val/accuracy",),
    "ig": ("val/inferred_worst", "val/worst_class"),
    "hg": ("val/worst_group",),
    "best_test": ("test/accuracy",),
}
"""Metrics that each rule maximises; the first one that was measured counts."""
_TIE_BREAKS = {"ig": "val/accuracy", "hg": "val/accuracy"}
"""Tie-breakers between epochs with equal values, which are common with few samples; otherwise the first epoch wins."""


def rules_for(data: Data, configured: Sequence[str]) -> list[str]:
    """Return the configured rules plus those that the validation split allows.

    A validation split held out from training data adds `best_noisy_val`; one that comes with the data set, or has
    attributes, adds `avg` and `ig`; attributes add `hg`.

    Raises ConfigError for a rule whose metric the data cannot provide.
    """
    there, grouped = "val" in data.evaluation_splits, False
    if there:
        grouped = data.attributes("val") is not None
    chosen = [rule for rule in configured if rule in ("avg", "ig", "hg")]
    if chosen and not there:
        raise ConfigError(
            f"trainer.selection: {', '.join(chosen)} needs a validation split, which this data set does not have; set "
            "dataset.val_fraction, e.g. to 0.1"
        )
    if "hg" in chosen and not grouped:
        raise ConfigError("trainer.selection: hg needs group labels, which this data set does not have; use ig or avg")
    share = len(data.val_indices) > 0
    added = [*(["best_noisy_val"] if share else []), *(["avg", "ig"] if there and (grouped or not share) else [])]
    return list(dict.fromkeys([*configured, *added, *(["hg"] if grouped else [])]))


class Selection:
    """Keeps the epoch and metrics that each rule selects, and a snapshot of the weights for `best_*` rules.

    Snapshots stay in host memory until the next checkpoint writes them together with the state that refers to them.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        unknown = set(rules) - set(RULES)
        if unknown:
            raise ValueError(f"unknown selection rules {sorted(unknown)}; choose from {sorted(RULES)}")
        self.rules = list(rules)
        self._recent: list[dict[str, float]] = []
        self._best: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, dict[str, Any]] = {}

    def update(self, epoch: int, metrics: Mapping[str, float], snapshot: Callable[[], dict[str, Any]]) -> None:
        """Add the metrics of an evaluation; a NaN never counts as best."""
        self._recent = [*self._recent, {"epoch": epoch, **metrics}][-10:]
        better = [rule for rule in self.rules if _is_better(rule, metrics, self._best.get(rule))]
        weights = snapshot() if better else {}
        for rule in better:
            self._best[rule] = {"epoch": epoch, **metrics}
            self.snapshots[rule] = weights

    def results(self) -> dict[str, dict[str, float]]:
        """Return the metrics that each rule selects; rules without any evaluation are absent."""
        results: dict[str, dict[str, float]] = {}
        for rule in self.rules:
            if rule == "last" and self._recent:
                results[rule] = dict(self._recent[-1])
            elif rule == "mean_last10" and self._recent:
                names = [n for n in self._recent[-1] if n != "epoch" and all(n in row for row in self._recent)]
                results[rule] = {n: sum(row[n] for row in self._recent) / len(self._recent) for n in names}
            elif rule in self._best:
                results[rule] = dict(self._best[rule])
        return results

    def state_dict(self) -> dict[str, Any]:
        """Return plain types; snapshots are saved separately."""
        return {"recent": self._recent, "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self._recent = [dict(row) for row in state["recent"]]
        self._best = {rule: dict(row) for rule, row in state["best"].items()}


def _is_better(rule: str, metrics: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """Return whether `rule` prefers these metrics to the best so far."""
    criterion = next((name for name in _CRITERIA.get(rule, ()) if name in metrics), None)
    if criterion is None or metrics[criterion] != metrics[criterion]:
        return False
    if best is None or criterion not in best:
        return True
    tie_break = _TIE_BREAKS.get(rule)
    if metrics[criterion] == best[criterion] and tie_break is not None:
        return metrics[tie_break] > best[tie_break]
    return metrics[criterion] > best[criterion]
