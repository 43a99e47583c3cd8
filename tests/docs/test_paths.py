"""Files, folders and modules that pages name in code exist; the drawn floors are those that a test keeps."""

import re

import pytest

from tests.architecture.test_floors import FLOORS
from tests.docs.pages import PAGES, ROOT
from tests.docs.test_diagrams import script as script  # a fixture

PACKAGE = ROOT / "src" / "robustlab"
HOMES = (ROOT, ROOT / "conf", ROOT / "conf" / "overlay", PACKAGE)
"""What a path on a page may start from."""

PATH = re.compile(r"`((?:[\w.]+/)+(?:[\w.-]+\.(?:py|sh|yaml|def|md))?)`")
MODULE = re.compile(r"\brobustlab((?:\.[a-z_]\w*)+)")
OUTPUTS = ("outputs/", "data/", "checkpoints/", "concepts_val/")
"""Folders that runs make or that hold data, and the first part of a metric."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_modules_exist(page):
    text = page.read_text(encoding="utf-8")
    missing = [
        path
        for path in PATH.findall(text)
        if not path.startswith(("my_", *OUTPUTS)) and not any((home / path).exists() for home in HOMES)
    ]
    files = {file.name for folder in ("src", "scripts", "tests") for file in (ROOT / folder).rglob("*.py")}
    missing += [name for name in re.findall(r"`(\w+\.py)`", text) if name not in files and not name.startswith("my_")]
    for dotted in MODULE.findall(text):
        parts = dotted.strip(".").split(".")
        places = [PACKAGE.joinpath(*parts[:end]) for end in range(len(parts), 0, -1)]
        if not any(place.is_dir() or place.with_suffix(".py").is_file() for place in places[:2]):  # a name in a module
            missing.append(f"robustlab{dotted}")
    if page.name != "CHANGELOG.md":  # it names what was
        assert missing == []


def test_the_figure_shows_the_floors_of_the_code(script):
    drawn = [set(title.split(", ")) for title in script.FLOORS]
    assert drawn == [set(floor) for floor in FLOORS if floor not in (("__main__",), ("",))]


def test_the_map_of_the_readme_has_every_package():
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("## Map")[1].split("```")[1]
    assert [name for name in sorted(packages) if f"{name}/" not in block] == []
