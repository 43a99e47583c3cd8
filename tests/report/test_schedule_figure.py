"""The picture of docs/schedules.md can be drawn again, and shows every schedule that there is."""

import importlib.util
from pathlib import Path

from PIL import Image

from robustlab.config.hydra_session import options

SCRIPT = Path(__file__).parents[2] / "scripts" / "draw_schedules.py"


def test_every_schedule_is_drawn(tmp_path):
    spec = importlib.util.spec_from_file_location("draw_schedules", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert set(script.PANELS) == set(options("scheduler"))
    script.main(["--out", str(tmp_path / "schedules.png")])
    with Image.open(tmp_path / "schedules.png") as picture:
        assert picture.width > 900
    table = (SCRIPT.parents[1] / "docs" / "schedules.md").read_text()
    assert [name for name in script.PANELS if f"| `{name}` |" not in table] == []
