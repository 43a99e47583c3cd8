"""Draw accuracy against FLOPs, parameters and neurons removed, for docs/methods/pruning.md.

The points are lines of docs/results: of DemP every penalty at the settings that are compared, of a baseline every
target at the knobs that were chosen on validation images. Test accuracy at the last epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustlab.core.figure_style import draw_level, draw_means, legend_beside, legend_width, tidy
from robustlab.study.results_file import read_lines
from robustlab.study.study_table import value, variants

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
MEASURES = {
    "FLOPs of a prediction removed, %": lambda row: 1 - _known(row, "pruning/flops_ratio_physical"),
    "parameters removed, %": lambda row: _known(row, "pruning/weight_sparsity"),
    "neurons removed, %": lambda row: _known(row, "pruning/neuron_sparsity"),
}
LONG = {"trainer.epochs": "120"}
BASELINES: dict[str, Mapping[str, str]] = {
    "SNAP-S": {"method": "snap", "optimizer.lr": "0.1", "method.scoring.refresh_norm": "False"},
    "random": {"method": "random_pruning", "optimizer.lr": "0.03", "method.scope": "per_layer"},
    "magnitude": {"method": "magnitude", "optimizer.lr": "0.03", "method.prune_at": "0.25"},
    "slimming": {"method": "slimming", "optimizer.lr": "0.03", "method.strength": "0.001"},
}
"""The settings of each on digits that were chosen on validation images."""
PANELS: dict[str, dict[str, tuple[str, Mapping[str, str]]]] = {
    "digits": {
        "DemP, lr 0.1": ("demp_digits", LONG | {"optimizer.lr": "0.1"}),
        "DemP, lr 0.03": ("demp_digits", LONG | {"optimizer.lr": "0.03"}),
        **{label: ("demp_digits_flops", settings) for label, settings in BASELINES.items()},
        "dense": ("demp_digits", LONG | {"method": "dense", "optimizer.lr": "0.1"}),
    },
    "CIFAR-10, 5,000 images": {
        "DemP, lr 0.03": ("demp_cifar", {}),
        "SNAP-S": ("demp_cifar", {"method": "snap"}),
        "dense": ("demp_cifar", {"method": "dense"}),
    },
}
"""Of each data set the lines: the study, and settings that a point must have; method is demp where none is named."""


def points(study: str, settings: Mapping[str, str]) -> list[list[Mapping[str, Any]]]:
    """Return the finished rows of a study that have these settings, those of one point and all its seeds together."""
    wanted = {"method": "demp", **settings}
    rows = [
        row
        for row in read_lines(RESULTS / f"{study}.jsonl")
        if row["exit_code"] == 0 and wanted.items() <= ({"method": "demp"} | row["settings"]).items()
    ]
    return list(variants(rows).values())


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/pruning.png"), help="default: %(default)s")
    out = parser.parse_args(argv).out
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(label for lines in PANELS.values() for label in lines))
    size = (3.6 * len(MEASURES) + legend_width(labels), 3.3 * len(PANELS))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(PANELS), len(MEASURES), squeeze=False, sharey="row")
    handles: dict[str, Any] = {}
    for row, (name, lines) in zip(axes, PANELS.items(), strict=True):
        row[0].set_ylabel(f"{name}: test accuracy, %")
        for axis, measure in zip(row, MEASURES, strict=True):
            for label, (study, settings) in lines.items():
                handles[label] = _draw(axis, points(study, settings), measure, labels.index(label))
            axis.set_xlabel(measure)
            tidy(axis)
    legend_beside(figure, handles)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    print(out)


def _draw(axis: Any, found: Sequence[Sequence[Mapping[str, Any]]], measure: str, number: int) -> Any:
    """Draw the mean over seeds of each point, and bars from the least to the largest; dense as a horizontal line."""
    if all(row["settings"].get("method") == "dense" for rows in found for row in rows):
        values = [100 * _known(row, "test/accuracy") for rows in found for row in rows]
        return draw_level(axis, values, 0)
    share = MEASURES[measure]
    groups = [[(100 * share(row), 100 * _known(row, "test/accuracy")) for row in rows] for rows in found]
    return draw_means(axis, groups, number)


def _known(row: Mapping[str, Any], metric: str) -> float:
    found = value(row, metric, "last")
    assert found is not None, f"{row['command']} has no {metric}"
    return found


if __name__ == "__main__":
    main()
