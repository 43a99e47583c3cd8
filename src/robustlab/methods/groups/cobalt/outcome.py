"""Report the concepts and sampling of a CoBalT run: a line on the screen, then a file and figures at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.core.console import say, warn
from robustlab.core.files import write_json
from robustlab.methods.groups.cobalt.charts import draw_sampling, draw_table
from robustlab.methods.groups.cobalt.concept_statistics import rare_group_shares, summary
from robustlab.methods.groups.cobalt.fitted_draw import Fit
from robustlab.methods.groups.cobalt.pictures import illustrate
from robustlab.methods.groups.cobalt.sampler_report import SamplerReport

if TYPE_CHECKING:
    from robustlab.data.run_data import Data
    from robustlab.methods.groups.cobalt.artifact import Concepts
    from robustlab.methods.groups.cobalt.discover import Discovery

DRAWS_FILE = "sampler.json"


def announce(report: SamplerReport) -> None:
    """Describe the sampling; warn about concepts that cannot be balanced, and if there is nothing to balance over."""
    kept, size = int(report.kept.sum()), len(report.p)
    rare = f" (dropped as rare: {', '.join(map(str, report.dropped))})" if report.dropped else ""
    how = "fitted to all of them" if report.eta is None else f"eta {report.eta:g}"
    values = report.metrics()
    say(
        f"CoBalT balances {kept} of {len(report.kept)} concepts{rare}, {how}: effective sample size "
        f"{report.effective_size:,.0f} of {size:,}; most frequent image {report.largest:.1f} times per epoch; "
        f"labels within a concept are at most {values['variation']:.2f} from uniform (total variation), "
        f"{values['variation_before']:.2f} before balancing"
    )
    if report.bounded:
        say(f"CoBalT: method.sampler.max_ratio limits how often {report.bounded:,} images are drawn")
    if report.fit is not None:
        _warn_of_left_out(report.fit)
    if kept < 2:
        warn(
            "there is only one concept, so images are balanced over classes only; train stage 1 longer "
            "(method.discover.epochs), or check what its views randomise (method.views)"
        )


def _warn_of_left_out(fit: Fit) -> None:
    if fit.one_label:
        warn(
            f"only images of one class contain concept {_listed(fit.one_label)}, so no sampling can balance its "
            "labels; it is left out of the fit"
        )
    if fit.conflicting:
        warn(
            f"the labels of concept {_listed(fit.conflicting)} could not be balanced together with the other concepts "
            "while still drawing all images; it is left out of the fit"
        )


def _listed(concepts: Sequence[int]) -> str:
    return ", ".join(map(str, concepts))


def diagnostics(concepts: Concepts, data: Data) -> dict[str, float]:
    """Return concept metrics of the training and validation split to log; attributes are used for nothing else."""
    found = {}
    for split, prefix in (("train", "concepts"), ("val", "concepts_val")):
        if split in concepts.tables:
            values = summary(
                concepts.tables[split],
                concepts.area[split],
                data.labels(split),
                num_concepts=concepts.num_concepts,
                attributes=data.attributes(split),
            )
            found |= {f"{prefix}/{name}": value for name, value in values.items()}
    return found


def draws(report: SamplerReport, data: Data) -> dict[str, float]:
    """Return sampling metrics to log; attributes are used only for the shares of rare groups."""
    return {f"sampler/{name}": value for name, value in {**report.metrics(), **oracle(report, data)}.items()}


def oracle(report: SamplerReport, data: Data) -> dict[str, float]:
    """Return the shares of rare groups before and after balancing; {} if groups are unknown.

    For reporting only: nothing in training or selection depends on them.
    """
    attributes = data.attributes("train")
    return {} if attributes is None else rare_group_shares(report.p, data.labels("train"), attributes)


def write_report(
    report: SamplerReport, concepts: Concepts, data: Data, folder: Path, *, discovery: Discovery | None = None
) -> dict[str, Path]:
    """Write sampler.json and, in figures/, figures of concepts and sampling; return {name: PNG file}.

    - concepts: the concepts as discovered.
    - discovery: the discovery that found them as slots, to draw these; None without slots.
    """
    write_json(folder / DRAWS_FILE, {**report.record(), **oracle(report, data)})
    figures = folder / "figures"
    labels, attributes = data.labels("train"), data.attributes("train")
    if discovery is not None:
        paths = illustrate(discovery, concepts, data, figures)
    else:
        paths = {"table": figures / "table.png"}
        draw_table(concepts.tables["train"], labels, paths["table"], num_concepts=concepts.num_concepts, task=data.task)
    paths["sampling"] = figures / "sampling.png"
    draw_sampling(report.p, labels, paths["sampling"], task=data.task, attributes=attributes)
    return {f"concepts/{name}": path for name, path in paths.items()}
