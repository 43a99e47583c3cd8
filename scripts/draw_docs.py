"""Draw the diagrams of the documentation, each for light and dark pages: `python scripts/draw_docs.py [--out FOLDER]`.

They are narrow, so that they can be read on a phone, and plain SVG, so that a change shows in a diff.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

PALETTES = {
    "light": {
        "text": "#1f2430",
        "soft": "#5b6475",
        "line": "#8a93a5",
        "command": "#eceff4",
        "data": "#dbe9fb",
        "method": "#e9e0fa",
        "engine": "#d8f0e6",
        "out": "#fdeecf",
        "stop": "#fbdfdc",
    },
    "dark": {
        "text": "#f1f3f8",
        "soft": "#b4bccb",
        "line": "#8a93a5",
        "command": "#3a4150",
        "data": "#23466f",
        "method": "#4a3672",
        "engine": "#1e5645",
        "out": "#68501a",
        "stop": "#6f3130",
    },
}
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


@dataclass
class Canvas:
    """An SVG picture that grows; `colours` is one of `PALETTES`."""

    width: int
    height: int
    colours: dict[str, str]
    parts: list[str] = field(default_factory=list)

    def bar(self, x: int, y: int, width: int, height: int, kind: str) -> None:
        """Add a rounded rectangle in the colour of `kind`."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{self.colours[kind]}"/>'
        )

    def box(
        self, x: int, y: int, width: int, height: int, kind: str, title: str, *lines: str, mono: bool = False
    ) -> None:
        """Add a rounded box in the colour of `kind` with a title and smaller lines below it."""
        self.bar(x, y, width, height, kind)
        top = y + height / 2 - 9 * len(lines) + 5
        self.text(x + width / 2, top, title, weight=600, font=MONO if mono else SANS)
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, top + 18 * number, line, size=13, colour="soft")

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 15,
        colour: str = "text",
        weight: int = 400,
        font: str = SANS,
        anchor: str = "middle",
    ) -> None:
        """Add text, by default centred at x."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" font-family="{font}" '
            f'text-anchor="{anchor}" fill="{self.colours[colour]}">{escape(words, quote=False)}</text>'
        )

    def arrow(self, *points: tuple[int, int], dashed: bool = False) -> None:
        """Add a line through the points that ends in an arrow head."""
        path = " ".join(f"{'L' if number else 'M'}{x} {y}" for number, (x, y) in enumerate(points))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{self.colours["line"]}" stroke-width="1.6"{dash} '
            'marker-end="url(#head)"/>'
        )

    def svg(self, title: str) -> str:
        """Return the picture as text."""
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{self.colours["line"]}"/></marker>'
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img">',
                f"<title>{escape(title)}</title>",
                f"<defs>{head}</defs>",
                *self.parts,
                "</svg>",
                "",
            ]
        )


def run(colours: dict[str, str]) -> str:
    """Draw how a run lives, from the command to its results."""
    canvas = Canvas(560, 616, colours)
    main = [
        ("command", "train method=elr seed=1", ()),
        ("data", "Compose", ("defaults < experiment < setting", "< command line")),
        ("data", "Check", ("keys, types, bounds, arguments,", "every point of a sweep")),
        ("engine", "Find the folder", ("<method>-<dataset>-<hash of", "the settings>/seed<k>")),
        ("engine", "Build, then claim", ("data, networks; lock the folder",)),
        ("method", "Train", ("stages, epochs, steps;", "saves every two minutes")),
        ("out", "Results", ("results.json, written last of all",)),
    ]
    side = {
        2: ("stop", "exit code 2", "nothing written"),
        3: ("out", "finished before", "reported, not repeated"),
        4: ("stop", "in use elsewhere", "refused"),
        5: ("stop", "signal: exit code 85", "or kill -9, power"),
    }
    for row, (kind, title, lines) in enumerate(main):
        y = 10 + 86 * row
        canvas.box(10, y, 270, 64, kind, title, *lines, mono=not row)
        if row:
            canvas.arrow((145, y - 22), (145, y - 3))
        if row in side:
            canvas.arrow((280, y + 32), (317, y + 32))
            canvas.box(320, y + 6, 190, 52, *side[row])
    canvas.arrow((510, 472), (538, 472), (538, 42), (284, 42), dashed=True)
    canvas.text(418, 34, "the same command continues", size=13, colour="soft")
    canvas.text(418, 62, "(SLURM requeues the job)", size=13, colour="soft")
    return canvas.svg("How a run lives")


def batch(colours: dict[str, str]) -> str:
    """Draw the path of one batch, from indices to metrics.jsonl."""
    canvas = Canvas(560, 702, colours)
    indices = ("a permutation of (seed, purpose, epoch);", "rank r takes rows r, r + world size, ...")
    views = ("weak, strong, ...: augmented and normalised as one batch,", "draws of (key, sample index)")
    step = ("backward, accumulate, average over processes, clip,", "update, moving average")
    rows = [
        ("data", "Indices", indices),
        ("data", "Pixels, uint8 [B, C, H, W]", ("resident on the device, or decoded by workers",)),
        ("data", "Views, float [B, C, H, W]", views),
        ("data", "Batch", ("index, targets (the assigned labels), views",)),
        ("method", "Method: train_step(batch, position)", ("forward passes and losses; often just one loss()",)),
        ("engine", "Learner: step(loss)", step),
        ("out", "Scalars", ("stay on the device; read every log_every steps",)),
        ("out", "metrics.jsonl", ("and, reading along, terminal, W&B, TensorBoard",)),
    ]
    for row, (kind, title, lines) in enumerate(rows):
        y = 10 + 86 * row
        canvas.box(60, y, 440, 66, kind, title, *lines)
        if row:
            canvas.arrow((280, y - 20), (280, y - 3))
    canvas.arrow((500, 473), (534, 473), (534, 42), (504, 42), dashed=True)
    canvas.parts.append(f'<g transform="translate(550 258) rotate(90)">{_caption(colours, "the next step")}</g>')
    return canvas.svg("The path of one batch")


def _caption(colours: dict[str, str], words: str) -> str:
    canvas = Canvas(0, 0, colours)
    canvas.text(0, 0, words, size=13, colour="soft")
    return canvas.parts[0]


FLOORS = {
    "train, commands": ("command", "the command lines"),
    "launch": ("command", "SLURM: submission, jobs, status"),
    "study": ("command", "named lists of runs, committed results"),
    "sweeps": ("command", "points: expanded, composed, checked"),
    "report, export": ("out", "tables and plots; networks that stand alone"),
    "methods": ("method", "label_noise, pruning, groups"),
    "diagnostics": ("method", "what is measured beside training"),
    "engine": ("engine", "loop, learner, session, checkpoints, evaluation"),
    "pruning": ("engine", "surgery, death, penalty, scores"),
    "tracking": ("engine", "JSON lines, W&B, TensorBoard, terminal"),
    "data": ("data", "sources, noise, transforms, storage, serving"),
    "models": ("data", "networks, and which units can be removed"),
    "config": ("data", "compose, check; signatures without torch"),
    "metrics": ("data", "accuracies of groups, intervals, names"),
    "core": ("data", "errors, random numbers, files, processes"),
}
"""From the top down: the packages of a floor, the colour, and what is inside."""


def floors(colours: dict[str, str]) -> str:
    """Draw the packages of the code, each above what it may import."""
    canvas = Canvas(560, 38 * len(FLOORS) + 16, colours)
    for row, (title, (kind, inside)) in enumerate(FLOORS.items()):
        y = 8 + 38 * row
        canvas.bar(10, y, 490, 33, kind)
        canvas.text(22, y + 22, title, size=14, weight=600, anchor="start")
        canvas.text(174, y + 22, inside, size=13, colour="soft", anchor="start")
    bottom = 38 * len(FLOORS)
    canvas.arrow((522, 20), (522, bottom - 8))
    canvas.parts.append(f'<g transform="translate(540 {bottom // 2}) rotate(90)">{_caption(colours, "imports")}</g>')
    return canvas.svg("The floors of the code")


DIAGRAMS = {"run": run, "batch": batch, "floors": floors}


def main(argv: Sequence[str] | None = None) -> None:
    """Write every diagram in every palette."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="default: %(default)s")
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAMS.items():
        for palette, colours in PALETTES.items():
            (out / f"{name}-{palette}.svg").write_text(draw(colours), encoding="utf-8")


if __name__ == "__main__":
    main()
