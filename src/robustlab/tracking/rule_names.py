"""Display names of selection rules in summaries, tables and figures."""

from __future__ import annotations

RULE_NAMES = {
    "last": "last epoch",
    "mean_last10": "mean of the last 10 evaluations",
    "best_noisy_val": "best on the noisy validation split",
    "avg": "best average on the validation split",
    "ig": "best worst inferred group (without concepts: class) on the validation split",
    "hg": "oracle: best worst group on the validation split",
    "best_test": "oracle: best epoch chosen on the test set",
}
"""Display names of selection rules; rules that use the test set or group labels always say so."""


def is_oracle(rule: str) -> bool:
    """Whether a selection rule uses what an honest user would not have: the test set, or group labels."""
    return RULE_NAMES.get(rule, "").startswith("oracle")
