"""The README stays short; what it and the repository's front matter promise holds."""

import re
import tomllib

import yaml

from tests.docs.pages import ROOT, blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return what stands below a heading of the README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_readme_fits_on_a_few_screens():
    assert len(README.splitlines()) < 150
    assert len(re.findall(r"^\| ---", README, flags=re.MULTILINE)) == 1
    assert README.count("![") == 1


def test_its_results_are_those_of_the_pages():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "methods").glob("*.md"))
    numbers = re.findall(r"\d+\.\d ± \d+\.\d|\b\d\d\.\d\b", section("Results"))
    assert len(numbers) >= 14
    assert [number for number in numbers if number not in pages] == []


def test_it_shows_two_commands_to_set_up_and_ten_to_use():
    def lines(title):
        return section(title).split("```bash\n")[1].split("```")[0].splitlines()

    assert [line.partition("#")[0].strip() for line in lines("Set-up")] == [
        "pip install uv && uv run train",
        "uv run pytest",
    ]
    assert len(lines("Ten commands")) == 10


def test_the_map_names_folders_that_exist():
    (block,) = [block.text for block in blocks(ROOT / "README.md", "text")]
    names = re.findall(r"[\w./]+/(?=[\s;:]|$)", block)
    assert len(names) > 20
    rooms = {path.name for path in (ROOT / "src" / "robustlab").rglob("*") if path.is_dir()}
    assert [name for name in names if not (ROOT / name).is_dir() and name.rstrip("/") not in rooms] == []


def test_the_workflow_runs_what_the_session_runs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]
    assert 40 < job["timeout-minutes"] <= 120
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads the key `on` as true


def test_ci_builds_the_site_so_that_a_broken_link_fails():
    (line,) = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "mkdocs build" in line]
    assert "--strict" in line
    assert "--quiet" not in line  # mkdocs would then count no warnings
    assert " -q" not in line
    validation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["validation"]
    assert {value for part in validation.values() for value in part.values()} == {"warn"}


def test_the_citation_follows_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["authors"] == [{"name": "The robustlab authors"}]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_the_hooks_need_no_repository():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [one["repo"] for one in hooks["repos"]] == ["local"]
    assert {hook["id"] for one in hooks["repos"] for hook in one["hooks"]} >= {"ruff", "ruff-format", "end-of-file"}
