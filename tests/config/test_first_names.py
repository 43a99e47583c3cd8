"""Classes and keys may move: folders keep the names that they had before, and what is stored is still understood."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from robustlab.config.compose import compose
from robustlab.config.dotted import flat
from robustlab.config.layouts import as_first_written, flat_in_todays_words, in_todays_words
from robustlab.config.renames import Layout, recorded
from robustlab.config.run_names import identity, run_name
from robustlab.config.static.sources import NotThereError, UnreadableError, locate, submodules
from robustlab.core.errors import ConfigError

RECORD = json.loads((Path(__file__).parent / "first_names.json").read_text(encoding="utf-8"))
"""Command lines, each with the name of its run folder and the settings hashed into it, before anything was moved."""

RESPELT = {
    "method.diagnostics.every=0": "diagnostics.memorisation.every=0",
    "method.diagnostics.every=5": "diagnostics.memorisation.every=5",
    "method.diagnostics.batch_size=100": "diagnostics.memorisation.batch_size=100",
}
"""Arguments of recorded command lines that are written in another way today."""


def settings_of(run: list[Any]) -> dict[str, Any]:
    """Return the settings that were hashed into the name of a recorded run."""
    groups = zip(RECORD["groups"], run[2], strict=True)
    return {group: RECORD["settings"][group][index] for group, index in groups if index is not None}


def arguments(run: list[Any]) -> list[str]:
    return [RESPELT.get(argument, argument) for argument in run[0].split()]


def assert_found(run: list[Any]) -> None:
    """Assert that the command line of a recorded run leads to its folder; on failure pytest shows the settings."""
    cfg = compose(arguments(run))
    assert identity(cfg) == settings_of(run), f"`train {run[0]}`: other settings than when {run[1]} was named"
    assert run_name(cfg) == run[1]


@pytest.mark.parametrize("run", RECORD["runs"][::15], ids=lambda run: run[0] or "(no argument)")
def test_a_command_finds_the_folder_of_the_previous_layout(run):
    assert_found(run)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_every_recorded_command_finds_its_folder(part):
    for run in RECORD["runs"][part::10]:
        assert_found(run)


@pytest.mark.parametrize("argument", RESPELT)
def test_an_argument_in_former_words_is_refused_with_todays(argument):
    with pytest.raises(ConfigError, match=f"has moved; write {re.escape(RESPELT[argument])}$"):
        compose([argument])


def test_recorded_names_are_hashes_of_the_recorded_settings():
    for run in RECORD["runs"]:
        text = json.dumps(settings_of(run), sort_keys=True)
        assert run[1].endswith(hashlib.sha256(text.encode()).hexdigest()[:8])


def test_stored_settings_go_to_todays_words_and_back():
    for run in RECORD["runs"]:
        stored = settings_of(run)
        today = in_todays_words(stored)
        assert as_first_written(today) == stored
        assert in_todays_words(today) == today
        assert flat_in_todays_words(flat(stored)) == flat(today)


def targets(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["_target_"]} if "_target_" in value else set()
        return own.union(*map(targets, value.values()))
    return set().union(*map(targets, value)) if isinstance(value, list) else set()


def test_every_class_that_old_settings_name_exists_today():
    for target in sorted(targets(in_todays_words(RECORD["settings"]))):
        assert not isinstance(exists(target), NotThereError), exists(target)


def exists(target: str) -> Exception | None:
    try:
        locate(target)
    except UnreadableError:
        return None  # made at run time, in a package that is not ours
    except NotThereError as error:
        return error
    return None


def names(layout: Layout) -> tuple[list[str], list[str]]:
    """Return former and today's names of classes in a table, those of classes told apart by their parts once."""
    old = [*layout.targets, *(str(row.old["_target_"]) for row in layout.nodes)]
    new = [*layout.targets.values(), *(str(row.new["_target_"]) for row in layout.nodes)]
    return old, new


@pytest.mark.parametrize("layout", recorded())
def test_the_tables_can_be_read_backwards(layout):
    assert len(set(layout.modules.values())) == len(layout.modules)
    assert len(set(layout.targets.values())) == len(layout.targets)
    for side in ("old", "new"):
        values = [sorted(map(repr, getattr(row, side).items())) for row in layout.nodes]
        assert len({str(one) for one in values}) == len(values), f"two nodes have the same `{side}`"
    for row in (*layout.nodes, *layout.places):
        assert len(set(row.keys.values())) == len(row.keys)
    assert not set(layout.targets.values()) & {str(row.new["_target_"]) for row in layout.nodes}


def test_a_former_name_is_not_used_again():
    former: set[str] = set()
    for layout in recorded():
        old, new = names(layout)
        former |= {*old, *layout.modules}
        assert not former & {*new, *layout.modules.values()}


def test_what_the_tables_name_exists():
    last = recorded()[-1]
    for module in last.modules.values():
        parent, _, name = module.rpartition(".")
        assert name in submodules(parent), f"{module}: there is no such module"
    for target in names(last)[1]:
        assert exists(target) is None, f"{target}: {exists(target)}"
    for target in names(last)[0]:
        assert isinstance(exists(target), NotThereError), f"{target} is still there"
