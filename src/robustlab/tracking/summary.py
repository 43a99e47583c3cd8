"""Print the summary at the end of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from robustlab.config.method_labels import label_of
from robustlab.config.occupant import describe_history
from robustlab.core.console import duration, make_console, percent
from robustlab.core.invocation import hint, program_hint
from robustlab.tracking.group_summary import group_rows, measured_splits, worst_group
from robustlab.tracking.jsonl import decode_number
from robustlab.tracking.rule_names import RULE_NAMES, is_oracle

_OF_ONE_RUN = re.compile(r"\+{0,2}(seed|resume|paths\.run_dir)=")
"""Overrides that only apply to one run: other seeds are other runs, in separate folders."""


def print_summary(
    results: Mapping[str, Any],
    baseline: Mapping[str, Any] | None = None,
    *,
    run_dir: Path,
    arguments: Sequence[str],
    console: Console | None = None,
) -> None:
    """Print the summary of a run: accuracies, the baseline, wrong labels, the folder, and what to do next.

    Args:
        results: content of the run's `results.json`.
        baseline: `results.json` of the run it is compared with, if there is one.
        run_dir: the run folder.
        arguments: what `train` was given to make the run, e.g. ["method=elr"].
        console: where to print; default the standard output, without a terminal as plain text.
    """
    console = console or make_console()
    measured = [_accuracies(results, baseline), *_groups(results, baseline)]
    parts = [*measured, *_pruning(results, baseline), _labels(results), _rules(results)]
    title = f"{label_of(results)} on {results['dataset']}{_noise(results)}, {results['model']}, seed {results['seed']}"
    facts = f"{results['epochs']} epochs in {duration(results['seconds'])}, {results['parameters']:,} parameters"
    facts += f"; {past}" if (past := describe_history(results)) else ""
    shown = Group(*[line for part in parts if part is not None for line in (part, Text())][:-1])
    if console.is_terminal:
        console.print(
            Panel(shown, title=f"[bold]{escape(title)}[/]", subtitle=escape(facts), box=box.ROUNDED, padding=(1, 2))
        )
    else:
        with console.capture() as capture:
            console.print(shown)
        body = "\n".join(line.rstrip() for line in capture.get().splitlines())
        console.out(f"\n{title}\n{facts}\n\n{body}\n", highlight=False)
    for remark in results.get("remarks", ()):
        console.print(f"[yellow]warning:[/] {escape(remark)}", soft_wrap=True)
    for label, text in _next_steps(run_dir, arguments):
        console.print(f"[dim]{label:18}[/]{escape(text)}", soft_wrap=True)  # whole lines, so that they can be copied


def _accuracies(results: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> RenderableType | None:
    """Accuracy at the last epoch: the method, its parts, the baseline and the difference in points; other test splits.

    None for a run that did not train a classifier.
    """
    last = _last(results)
    table = _table("Test accuracy, last epoch", "")
    accuracy = _number(last, "test/accuracy")
    parts = {match[1]: name for name in last if (match := re.fullmatch(r"test/(.+)/accuracy", name))}
    label = f"{label_of(results)}, ensemble" if parts else label_of(results)
    if accuracy is not None:
        table.add_row(Text(label, "bold"), Text(percent(accuracy), "bold green"))
    for part, name in sorted(parts.items()):
        value = _number(last, name)
        if value is not None:
            table.add_row(f"  {re.sub(r'(?<=[a-z])(?=[0-9])', ' ', part)} alone", percent(value))
    others = [f"{split}/accuracy" for split in measured_splits(last) if split != "test"]
    for name in [*others, *results.get("derived", ())]:
        value = _number(last, name)
        if value is not None:
            table.add_row(f"  {name.removesuffix('/accuracy')}", percent(value))
    if baseline is not None:
        other = _number(_last(baseline), "test/accuracy")
        if other is not None:
            equal = baseline["epochs"] == results["epochs"]
            shown = "same data and epochs" if equal else f"same data, {baseline['epochs']} epochs"
            table.add_row(f"{label_of(baseline)}, {shown}", percent(other))
            if accuracy is not None:
                points = 100 * (accuracy - other)
                word = "ahead" if points >= 0 else "behind"
                table.add_row(f"{label_of(results)} is {word} by", Text(f"{abs(points):.1f} points", "bold"))
    return table if table.row_count > 1 else None


def _groups(results: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Iterator[RenderableType]:
    """Averages and worst group at the last epoch, of every test split whose groups are known."""
    for split in measured_splits(_last(results)):
        rows = group_rows(results, _last(results), split)
        if not rows:
            continue
        table = _table(f"Groups of the {split} split, last epoch", "")
        for label, value in rows[:-1]:
            table.add_row(f"  {label}", value)
        label, value = rows[-1]
        table.add_row(Text(f"  {label}", "bold"), Text(value, "bold green"))
        if baseline is not None:
            for label, value in group_rows(baseline, _last(baseline), split)[-1:]:
                table.add_row(f"  {label_of(baseline)}, {label}", value)
        yield table


def _pruning(results: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Iterator[RenderableType]:
    """How much smaller and cheaper the network has become, and how many units each layer has left."""
    final = results["final"]
    if _number(final, "pruning/neuron_sparsity") is None:
        return
    table = _table("Removed by pruning", "")
    for label, name in (
        ("units (neuron sparsity)", "pruning/neuron_sparsity"),
        ("weights (weight sparsity)", "pruning/weight_sparsity"),
        ("dead units that were not removed", "pruning/dead_share"),
    ):
        if (value := _number(final, name)) is not None:
            table.add_row(f"  {label}", percent(value))
    if baseline is not None:
        table.add_row("  parameters", f"{results['parameters']:,}")
        table.add_row(f"  parameters with {label_of(baseline)}", f"{baseline['parameters']:,}")
    for label, name in (
        ("FLOPs of a prediction, of the unpruned network's", "pruning/flops_ratio_physical"),
        ("  in the paper's count", "pruning/flops_ratio"),
        ("FLOPs of training, of the unpruned network's", "pruning/training_flops_ratio_physical"),
        ("  in the paper's count", "pruning/training_flops_ratio"),
    ):
        if (value := _number(final, name)) is not None:
            table.add_row(f"  {label}", percent(value))
    yield table
    live = [round(float(value)) for name, value in final.items() if name.startswith("pruning/live/")]
    yield Text(f"Units left, layer by layer: {' '.join(map(str, live))}")


def _labels(results: Mapping[str, Any]) -> RenderableType | None:
    """How many wrong labels the training set has, and what became of them; None where that is not known."""
    final, noise = results["final"], results.get("noise_record") or results.get("noise") or {}
    count = noise.get("num_wrong")
    rows = [
        ("corrected (predicted as the clean label)", "diagnostics/corrected"),
        ("memorised (predicted as the wrong label)", "diagnostics/memorised"),
        ("memorised by the network that trained on them", "diagnostics/memorised_own"),
        ("memorised by the network that did not (other half)", "diagnostics/memorised_other"),
    ]
    known = [(label, value) for label, name in rows if (value := _number(final, name)) is not None]
    if not count and not known:
        return None
    table = _table("Wrong labels in the training set", f"{count:,}" if count else "")
    for label, share in known:
        of_all = f"{round(share * count):,} ({percent(share)})" if count else percent(share)
        table.add_row(f"  {label}", of_all)
    return table


def _rules(results: Mapping[str, Any]) -> RenderableType | None:
    """Test accuracy (and worst group) by selection rule, oracles labelled; None if there is only the last epoch."""
    rows = [(rule, row) for rule, row in results["selection"].items() if _number(row, "test/accuracy") is not None]
    if len(rows) < 2:
        return None
    table = _table("Test accuracy by selection rule", "")
    for rule, row in rows:
        accuracy = _number(row, "test/accuracy")
        assert accuracy is not None
        name = RULE_NAMES.get(rule, rule)
        chosen = rule not in ("last", "mean_last10") and "epoch" in row
        epoch = f", epoch {int(row['epoch']) + 1}" if chosen else ""
        style = "dim" if is_oracle(rule) else ""
        worst = worst_group(results, row, "test")
        value = percent(accuracy) if worst is None else f"{percent(accuracy)}, worst group {percent(worst[1])}"
        table.add_row(Text(f"  {name}{epoch}", style), Text(value, style))
    return table


def _last(results: Mapping[str, Any]) -> Mapping[str, Any]:
    return results["selection"].get("last") or results["final"]


def _next_steps(run_dir: Path, arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Where the run is and which commands come next, each copyable as it stands."""
    words = [word for word in arguments if word not in ("-m", "--multirun") and not _OF_ONE_RUN.match(word)]
    steps = [
        ("Run folder", str(run_dir)),
        ("More seeds", hint("train", "-m", *words, "seed=0,1,2")),
        ("Table of all runs", hint("report", str(above(run_dir)))),
    ]
    segment = offline_segment(run_dir)
    upload = [] if segment is None else [("Upload to W&B", program_hint("wandb", "sync", str(segment)))]
    return [*steps, *upload]


def above(run_dir: Path) -> Path:
    """Return the folder that a run lies in with others: two levels up from <name>/seed<k>, else one."""
    return run_dir.parent.parent if re.fullmatch(r"seed\d+", run_dir.name) else run_dir.parent


def offline_segment(run_dir: Path) -> Path | None:
    """The newest folder that W&B wrote offline, if it is newer than what was sent; it holds the whole run."""
    folders = sorted((run_dir / "wandb").glob("*run-*-*"), key=lambda path: path.name.split("run-")[1])
    return folders[-1] if folders and folders[-1].name.startswith("offline-") else None


def _table(title: str, value: str) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_row(Text(title, "bold cyan"), value)
    return table


def _noise(results: Mapping[str, Any]) -> str:
    noise = results.get("noise") or {}
    if not noise or noise.get("name") in (None, "none"):
        return ""
    rate = noise.get("true_rate", noise.get("rate"))
    return f" with {noise['name']} label noise" + (f" ({percent(rate)} wrong)" if rate is not None else "")


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = decode_number(row.get(name))
    return float(value) if isinstance(value, int | float) else None
