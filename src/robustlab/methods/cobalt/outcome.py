"""What a run of CoBalT says about its concepts and draws: a line on the screen, a file and pictures at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.files import write_json
from robustlab.methods.cobalt.charts import draw_sampling, draw_table
from robustlab.methods.cobalt.pictures import illustrate
from robustlab.methods.cobalt.sampler import SamplerReport
from robustlab.tracking.console import say, warn

if TYPE_CHECKING:
    from robustlab.data.module import Data
    from robustlab.methods.cobalt.artifact import Concepts
    from robustlab.methods.cobalt.discover import Discovery

DRAWS_FILE = "sampler.json"


def announce(report: SamplerReport) -> None:
    """Print what is drawn how; warn where there is nothing to balance over."""
    kept, size = int(report.kept.sum()), len(report.p)
    rare = f", without {', '.join(map(str, report.dropped))} that are rare" if report.dropped else ""
    say(
        f"CoBalT draws over {kept} of {len(report.kept)} concepts{rare}, eta {report.eta:g}: worth "
        f"{report.effective_size:,.0f} of {size:,} images drawn alike, one up to {report.largest:.1f} times an epoch"
    )
    if kept < 2:
        warn(
            "there is one concept alone, so that images are balanced over classes only; train stage 1 longer "
            "(method.discover.epochs), or look at what its views change (method.views)"
        )


def write_report(
    report: SamplerReport, concepts: Concepts, data: Data, folder: Path, *, discovery: Discovery | None = None
) -> dict[str, Path]:
    """Write sampler.json and, below figures/, pictures of concepts and draws; return the latter by name.

    concepts: as found. discovery: what found them as slots, to show these; None without.
    """
    write_json(folder / DRAWS_FILE, report.record())
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
