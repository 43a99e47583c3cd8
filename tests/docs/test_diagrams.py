"""The committed diagrams are what scripts/draw_docs.py draws, in both palettes, and pages show both."""

import importlib.util
from xml.etree import ElementTree

import pytest

from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("draw_docs", ROOT / "scripts" / "draw_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_diagrams_are_current(script, tmp_path):
    script.main(["--out", str(tmp_path)])
    drawn = sorted(tmp_path.iterdir())
    assert len(drawn) == 2 * len(script.DIAGRAMS)
    committed = ROOT / "docs" / "figures"
    assert [one.name for one in drawn if one.read_text() != (committed / one.name).read_text()] == []


def test_pages_show_each_diagram_in_both_palettes(script):
    text = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    for name in script.DIAGRAMS:
        assert f"(figures/{name}-light.svg#gh-light-mode-only)" in text
        assert f"(figures/{name}-dark.svg#gh-dark-mode-only)" in text


def test_texts_lie_within_the_picture(script):
    """Letters of a sans-serif font are at most some 0.62 em wide on average."""
    for draw in script.DIAGRAMS.values():
        picture = ElementTree.fromstring(draw(script.PALETTES["light"]))
        width = float(picture.attrib["width"])
        for text in picture.iter("{http://www.w3.org/2000/svg}text"):
            length = 0.62 * float(text.attrib["font-size"]) * len(text.text or "")
            x = float(text.attrib["x"])
            start = x if text.attrib["text-anchor"] == "start" else x - length / 2
            assert x == 0 or 0 <= start <= start + length <= width, text.text
