"""A `results.json` of a run on data with groups: the counts of Waterbirds, invented accuracies."""

GROUPS = {
    "classes": ["landbird", "waterbird"],
    "attributes": ["land", "water"],
    "counts": {
        "train": {
            "landbird-land": 3498,
            "landbird-water": 184,
            "waterbird-land": 56,
            "waterbird-water": 1057,
        },
        "test": {"landbird-land": 2255, "landbird-water": 2255, "waterbird-land": 642, "waterbird-water": 642},
    },
}


def measured(worst: float, **more: float) -> dict[str, float]:
    return {
        "epoch": 2, "test/accuracy": 0.8, "test/adjusted_avg": 0.9, "test/balanced_group_avg": 0.75,
        "test/worst_group": worst, "test/group/landbird-land": 0.99, "test/group/landbird-water": 0.7,
        "test/group/waterbird-land": worst, "test/group/waterbird-water": 0.95, **more,
    }  # fmt: skip
