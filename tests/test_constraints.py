"""constraints.txt names versions that pyproject.toml allows, each of them once, and no host."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def test_pinned_versions_lie_within_the_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *[line for extra in project["project"]["optional-dependencies"].values() for line in extra],
        *project["dependency-groups"]["dev"],
        *project["dependency-groups"]["docs"],
    ]
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    pins = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    for requirement in map(Requirement, wanted):
        versions = [str(pin.specifier).removeprefix("==") for pin in pins if pin.name == requirement.name]
        assert versions, f"{requirement.name} has no version in constraints.txt"
        for version in versions:
            assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"
