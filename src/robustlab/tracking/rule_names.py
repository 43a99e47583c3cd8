"""Selection rules and methods in words, as summaries, tables and figures name them."""

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
"""Selection rules in words; those that look at the test set or at group labels say so wherever they are shown."""
METHOD_NAMES = {
    "erm": "cross-entropy",
    "crosssplit": "CrossSplit",
    "elr": "ELR",
    "co_teaching": "Co-teaching",
    "demp": "DemP",
    "dense": "dense training",
    "random_pruning": "random pruning",
    "magnitude": "magnitude pruning",
    "slimming": "network slimming",
    "snap": "SNAP-S",
    "crop": "CroP-S",
    "crop_it": "CroP-it-S",
    "early_snap": "EarlySNAP-S",
    "early_crop": "EarlyCroP-S",
    "group_norm": "GroupNorm",
    "cobalt": "CoBalT",
    "cobalt_shuffled": "CoBalT with shuffled concepts",
    "cobalt_image": "CoBalT with clusters of images",
    "erm_cb": "class-balanced cross-entropy",
    "rwg": "RWG",
    "subg": "SUBG",
    "groupdro": "GroupDRO",
    "jtt": "JTT",
    "dfr": "DFR",
    "spectral_decoupling": "spectral decoupling",
}
"""Methods as their authors write them; a method that is not listed goes by the name in its YAML."""


def is_oracle(rule: str) -> bool:
    """Whether a selection rule uses what an honest user would not have: the test set, or group labels."""
    return RULE_NAMES.get(rule, "").startswith("oracle")
