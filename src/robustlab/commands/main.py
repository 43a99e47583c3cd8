"""`robustlab <verb>`: all commands of this package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from robustlab.commands import VERBS
from robustlab.config.wording import did_you_mean
from robustlab.core.closed_pipe import QuietlyClosed
from robustlab.core.invocation import command_words, shell_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code; 2 for a verb that does not exist."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else 2
    verb, *rest = words
    if verb not in VERBS:
        own = shell_line(command_words("report")[:-1])
        print(f"robustlab: no command {verb}{did_you_mean(verb, list(VERBS))}; see: {own} --help", file=sys.stderr)
        return 2
    module = "robustlab.train" if verb == "train" else f"robustlab.commands.{verb.replace('-', '_')}"
    with QuietlyClosed() as ending:
        ending.code = importlib.import_module(module).main(rest)
    return ending.code


def _help() -> str:
    own = shell_line(command_words("report")[:-1])
    lines = [f"  {verb:14}{what}" for verb, what in VERBS.items()]
    return "\n".join([f"usage: {own} <verb> [arguments]", "", *lines, "", f"Run {own} <verb> --help for details."])
