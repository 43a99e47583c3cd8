"""Suggest commands that match how this program was started, so that they work when pasted into the same shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

SWEEP_VARIABLE = "ROBUSTLAB_SWEEP"
"""Environment variable that tells a run in a SLURM job which sweep it is a point of."""


def hint(verb: str, *arguments: str) -> str:
    """Return a command line of robustlab as this user would type it: `train`, `report`, `status`, ... with arguments.

    It follows how the program was started: by uv, by a console script (on the PATH or not), as a module, by torchrun,
    or as a script of a checkout.
    """
    return shell_line([*command_words(verb), *arguments])


def command_words(verb: str) -> list[str]:
    """Return the words of `hint`, without arguments."""
    by_uv = _by_uv()
    place, python = Path(sys.argv[0]), "python" if by_uv else sys.orig_argv[0]
    script = place.with_name(f"{verb.replace('-', '_')}.py")
    if place.parent.name == "scripts" and place.suffix == ".py" and script.is_file():
        return [*by_uv, python, str(script)]
    if "TORCHELASTIC_RUN_ID" in os.environ and verb == "train" and os.environ.get("GROUP_WORLD_SIZE") == "1":
        processes = f"--nproc-per-node={os.environ['LOCAL_WORLD_SIZE']}"
        return [*by_uv, "torchrun", processes, "-m", "robustlab.train"]
    if _started_as_module():
        return [*by_uv, python, *_module(verb)]
    own_name = place.name == "train" and verb == "train"
    words = ["train"] if own_name or (verb == "train" and place.name != "robustlab") else ["robustlab", verb]
    program = _program(words[0])
    return [_from_here(Path(sys.executable)), *_module(verb)] if program is None else [*program, *words[1:]]


def same_command(resume: object = True) -> str:
    """Describe the command that resumes a run. `resume`: the setting that the run was started with."""
    return "the same command" if resume else "the same command without resume=false"


def program_hint(name: str, *arguments: str) -> str:
    """Return a command line of another program that was installed with this one, e.g. `wandb`."""
    return shell_line([*(_program(name) or [name]), *arguments])


def extra_hint(extra: str) -> str:
    """Return the command that installs an extra of this package."""
    checkout = Path(__file__).resolve().parents[3] / "pyproject.toml"
    return f"uv sync --extra {extra}" if checkout.is_file() else f"pip install 'robustlab[{extra}]'"


def _program(name: str) -> list[str] | None:
    """Return how to start a console script of this environment; None if there is no such script."""
    program = _scripts_folder() / name
    if not program.is_file():
        return None
    if _by_uv():
        return [*_by_uv(), name]
    found = shutil.which(name)
    return [name] if found and os.path.samefile(found, program) else [_from_here(program)]


def _by_uv() -> list[str]:
    return ["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []


def shell_line(words: Sequence[str]) -> str:
    """Write words so that a shell reads them back: as `shlex.join`, but readable where a word has quotes in it."""

    def quoted(word: str) -> str:
        return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)

    return " ".join(map(quoted, words))


def _started_as_module() -> bool:
    """Return whether a user typed `python -m robustlab...`; torchrun and jobs also start modules."""
    if "TORCHELASTIC_RUN_ID" in os.environ or SWEEP_VARIABLE in os.environ or "-m" not in sys.orig_argv[1:]:
        return False
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1]
    return module in (["robustlab"], ["robustlab.train"])


def _module(verb: str) -> list[str]:
    return ["-m", "robustlab.train"] if verb == "train" else ["-m", "robustlab", verb]


def _scripts_folder() -> Path:
    """Return where the console scripts of this installation lie."""
    own = Path(sys.argv[0])
    if own.name in ("train", "robustlab") and own.is_file():
        return own.resolve().parent
    return Path(sysconfig.get_path("scripts"))


def _from_here(path: Path) -> str:
    """Write a path as short as it can be typed in this folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
