"""Every command of README and docs is one that the command line takes: it is parsed, composed and checked, not run."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

from robustlab.commands import VERBS
from robustlab.config.check import check
from robustlab.config.compose import compose, session
from robustlab.config.flags import train_parser
from robustlab.config.hydra_session import all_options
from robustlab.core.errors import ConfigError
from robustlab.sweeps.points import read_sweep
from tests.docs.pages import PAGES, ROOT, commands, inline_commands

EXAMPLE = ROOT / "docs" / "extending.md"
"""Its command needs the files of the page, and is run by test_examples.py."""

PLACEHOLDERS = ("=...", "XXXXXXXX")
"""What stands for a value of the reader's own; such overrides are left out."""

TOOLS = {"uv", "pip", "uvx", "pytest", "bash", "mkdocs", "python", "sbatch"}
"""Other programs: files that their words name must exist."""


class ParsedError(Exception):
    """Raised in place of running a command whose arguments have been parsed."""


@pytest.fixture(autouse=True)
def only_parse(monkeypatch):
    """Let commands end where they have parsed their arguments."""
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def stop(parser, argv=None, namespace=None, parse=parse):
            raise ParsedError(parse(parser, argv, namespace))

        monkeypatch.setattr(argparse.ArgumentParser, name, stop)


def checked_train(words: list[str]) -> None:
    """Parse, compose and check the arguments of `train`. Raises ConfigError, or SystemExit for a wrong flag."""
    args, unknown = train_parser().parse_known_args(words)
    assert unknown == []
    overrides = [text for text in args.overrides if not any(mark in text for mark in PLACEHOLDERS)]
    overrides = [
        "seed=0" if re.fullmatch(r"seed=[\d,]+", text) else text for text in overrides
    ]  # one is like the other
    if args.multirun:
        with session() as hydra:
            read_sweep(hydra, overrides)
    else:
        check(compose(overrides))


def checked_verb(verb: str, words: list[str]) -> None:
    """Parse the arguments of `robustlab <verb>`; of `submit`, compose and check the sweep, too."""
    assert verb in VERBS
    if verb == "prepare-data":
        assert words[0] in all_options("dataset")
        check(compose([f"dataset={words[0]}", *words[1:]]))
        return
    with pytest.raises(ParsedError) as parsed:
        importlib.import_module(f"robustlab.commands.{verb.replace('-', '_')}").main(words)
    if verb == "submit":
        checked_train(["-m", "hydra/launcher=slurm", *parsed.value.args[0].overrides])


def checked_command(words: list[str]) -> None:
    """Check a command by its first word."""
    program, *rest = words
    if program in ("torchrun", "srun"):  # a launcher's own flags, then the program
        start = next(place for place, word in enumerate(rest) if word in ("train", "robustlab.train"))
        program, rest = "train", rest[start + 1 :]
    if program == "train":
        checked_train(rest)
    elif program == "robustlab":
        checked_verb(rest[0], rest[1:])
    else:
        assert program in TOOLS or (ROOT / program).is_file(), program
        named = [word for word in rest if word.endswith((".py", ".sh", ".yaml")) or word.startswith("tests/")]
        assert [word for word in named if not (ROOT / word).exists() and "sampler_exponent" not in word] == []


REFUSED = "train method=erm noise.model.rate=0.2"
"""The page on the configuration shows it as an example of what is refused."""

CASES = {
    " ".join(words): (words, page)
    for page in reversed(PAGES)  # the README's last: what other pages repeat counts as its
    for words in [*([] if page == EXAMPLE else commands(page)), *inline_commands(page)]
}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=text, marks=() if page.parent == ROOT else pytest.mark.slow)
        for text, (words, page) in CASES.items()
        if text != REFUSED
    ],
)
def test_the_command_is_one(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked_command(words)


def test_the_command_that_is_shown_as_refused_is():
    with pytest.raises(ConfigError, match="noise=symmetric"):
        checked_command(CASES[REFUSED][0])


def test_wrong_commands_are_found():
    for words in (["train", "method=erm", "optimizer.rl=0.1"], ["train", "-m", "noise=symetric", "seed=0,1"]):
        with pytest.raises(ConfigError):
            checked_command(words)
    with pytest.raises(SystemExit):
        checked_command(["robustlab", "report", "outputs/", "--formt", "csv"])
    for words in (["robustlab", "reprot"], ["python", "scripts/nothing.py"], ["trian"]):
        with pytest.raises(AssertionError):
            checked_command(words)


def test_commands_are_read_from_blocks(tmp_path):
    page = Path(tmp_path) / "page.md"
    page.write_text(
        '```bash\npip install uv && uv run train  # x\nD="a=1 b=2"\ntrain -m $D \\\n  c=3  # y\n```\n```text\nno\n```\n'
    )
    assert commands(page) == [["train"], ["train", "-m", "a=1", "b=2", "c=3"]]
