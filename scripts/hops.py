"""How many functions of the package lie on three paths that a reader follows, counted in real runs.

    uv run python scripts/hops.py [-v]

A path has milestones: from a data set's file over the batch and the loss to a line of metrics.jsonl, from the command
line to a method's constructor, from the decision to prune to the channels that are cut. Its hops are the functions of
the package that are active (on the call stack) when a milestone is reached for the first time.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from robustlab.train import main as train

LOCAL = (
    "compare=null", "tracker=local", "tracker.progress.mode=off", "trainer.device=cpu", "trainer.epochs=1",
    "dataset=digits", "dataset.subset=200", "noise=none",
)  # fmt: skip


@dataclass(frozen=True)
class Path:
    """The milestones of a path, by qualified names of functions, in the run of a command line."""

    name: str
    milestones: Sequence[str]
    overrides: Sequence[str]


PATHS = (
    Path(
        "file -> loss -> metrics.jsonl",
        ("Digits.split", "Renderer.normalize", "ERM.loss", "JsonlWriter.write"),
        ("method=erm",),
    ),
    Path("argv -> constructor", ("ERM.__init__",), ("method=erm",)),
    Path("pruning decision -> cut channels", ("sliced",), ("method=magnitude", "method.prune_at=0.1")),
)


def hops(path: Path) -> list[str]:
    """Return the functions of one path in the order in which they are met, by module and qualified name."""
    waiting, found = set(path.milestones), dict[str, None]()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_qualname in waiting and _module(frame):
            waiting.discard(frame.f_code.co_qualname)
            found.update(dict.fromkeys(reversed(_stack(frame))))

    with tempfile.TemporaryDirectory() as outputs, contextlib.redirect_stdout(io.StringIO()):
        sys.setprofile(watch)
        try:
            train([*path.overrides, *LOCAL, f"paths.output_dir={outputs}"])
        finally:
            sys.setprofile(None)
    if waiting:
        raise RuntimeError(f"{path.name}: {', '.join(sorted(waiting))} was not reached")
    return list(found)


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__", "")
    return name.removeprefix("robustlab.") if name.startswith("robustlab.") else ""


def _stack(frame: FrameType | None) -> list[str]:
    """Return the package's functions on a call stack, innermost first; comprehensions and lambdas do not count."""
    names = []
    while frame is not None:
        if _module(frame) and not frame.f_code.co_name.startswith("<"):
            names.append(f"{_module(frame)}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return names


def main() -> None:
    """Print the number of each path; with -v, the functions, too."""
    for path in PATHS:
        found = hops(path)
        print(f"{path.name:36}{len(found):4}")
        if "-v" in sys.argv[1:]:
            print(*(f"    {name}" for name in found), sep="\n")


if __name__ == "__main__":
    main()
