"""The pages of the documentation: where they are, their fenced blocks, links and anchors."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "slurm/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. path: what its first line names as the file it belongs into, "" if nothing."""

    language: str
    text: str

    @property
    def path(self) -> str:
        """Return the file named by the first line, a comment such as `# my_conf/method/gce.yaml`."""
        found = re.match(r"# ([\w/]+\.\w+)\b", self.text)
        return found[1] if found else ""


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return the fenced blocks of a page, of one language if given."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [Block(name, text) for name, text in found if language in (None, name)]


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command in a page's bash blocks, `uv run` and comments left out, variables filled in."""
    lines: list[list[str]] = []
    for block in blocks(page, "bash"):
        variables: dict[str, str] = {}
        for line in block.text.replace("\\\n", " ").splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            assignment = re.fullmatch(r'(\w+)="(.*)"', line)
            if assignment:
                variables[assignment[1]] = assignment[2]
                continue
            words = shlex.split(line, comments=True)
            if "&&" in words:
                words = words[words.index("&&") + 1 :]
            while words[:1] == ["uv"] and words[1:2] == ["run"]:
                words = words[2:]
            if words:
                lines.append(words)
    return lines


def inline_commands(page: Path) -> list[list[str]]:
    """Return the words of each complete command that stands in a sentence or a table."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"`(train [^`\n]+|robustlab [\w-]+ [^`\n]+|python scripts/[^`\n]+)`", text)
    return [shlex.split(one) for one in found if not re.search(r"\.\.\.|[<\[]|FOLDER|--config-dir", one)]


def prose(page: Path) -> str:
    """Return a page's text without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)
