"""Every relative link of README, CONTRIBUTING and the pages leads somewhere."""

import re

import pytest
import yaml

from tests.docs.pages import PAGES, ROOT, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_exist(page):
    links = [link for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]
    broken = [link for link in links if link.partition("#")[0] and not (page.parent / link.partition("#")[0]).exists()]
    assert broken == []


def test_pages_link_to_nothing_outside_of_the_site():
    """mkdocs copies `docs/` alone: a link that leaves it would be broken on the site, though not in the repository."""
    outside = [
        (page.name, link)
        for page in (ROOT / "docs").rglob("*.md")
        for link in LINK.findall(prose(page))
        if not re.match(r"[a-z]+:", link)
        and not (page.parent / link.partition("#")[0]).resolve().is_relative_to(ROOT / "docs")
    ]
    assert outside == []


def test_every_page_is_in_the_navigation():
    def files(node):
        if isinstance(node, str):
            return [node]
        return [file for value in (node.values() if isinstance(node, dict) else node) for file in files(value)]

    nav = files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted(pages)


def test_the_search_for_links_finds_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#x) ![b](../c.png)\n```\n[d](e.md)\n```\n`[f](g.md)` [h](https://example.org)\n")
    assert LINK.findall(prose(page)) == ["there.md#x", "../c.png", "https://example.org"]
