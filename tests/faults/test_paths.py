"""Path tricks in names, groups and overrides: nothing appears outside of the output folder, and no shell sees them."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from robustlab.config import run_names
from robustlab.config.run_names import path_safe
from robustlab.core.errors import ConfigError
from robustlab.engine.run_folder import prepare_folder
from tests.end_to_end.harness import train
from tests.faults.subjects import arguments

TRICKS = [
    "../../x",
    "/tmp/absolute",
    "a/../../b",
    "..",
    ".",
    "; touch x",
    "$(touch x)",
    "`touch x`",
    "CON",
    "a\\b",
    "~",
    "-rf",
]


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.fault("F17")
@pytest.mark.parametrize("trick", [*TRICKS, "a\0b", "x" * 300, "ü\u202e"])
def test_a_name_becomes_one_safe_component_of_a_path(trick):
    safe = path_safe(trick)
    assert safe == Path(safe).name
    assert safe not in ("", ".", "..")
    assert len(safe) <= 48
    assert not safe.startswith(("-", "."))
    assert safe.isprintable()


@pytest.mark.slow
@pytest.mark.fault("F17")
def test_tricks_in_the_settings_stay_in_the_output_folder_or_are_refused(tmp_path):
    root = tmp_path / "deep" / "root"
    outputs = root / "out"
    root.mkdir(parents=True)
    log = tmp_path / "log.txt"
    quick = ["trainer.max_steps=1", "trainer.epochs=1"]
    names = ["../../x", "; touch x", "$(touch x)", ".."]
    for number, trick in enumerate(names):
        more = [f'name="{trick}"', f'tags=["{trick}"]', f'tracker.wandb.group="{trick}"', f"seed={number}"]
        more += [f'method.name="{trick}"', f'dataset.name="{trick}"', "compare=null"]
        assert train([*arguments("erm", outputs, *quick), *more], log) in (0, 2), log.read_text()
    refused = ["experiment=../../x", "+experiment=/etc/passwd", "method=../../../etc/passwd", "dataset=../method/erm"]
    refused += ["paths.run_dir=../x", f"paths.run_dir={tmp_path}/elsewhere", f"paths.run_dir={outputs}/../../x"]
    for trick in refused:
        assert train([*arguments("erm", outputs, *quick), trick], log) == 2, (trick, log.read_text()[-2000:])
    assert "Traceback" not in log.read_text()
    assert {path for path in tree(tmp_path) if outputs not in (path, *path.parents)} == {
        tmp_path / "deep", root, log,
    }  # fmt: skip
    assert not Path("x").exists()


@pytest.mark.fault("F17")
def test_a_link_in_the_output_folder_does_not_lead_out_of_it(tmp_path):
    outputs, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    outputs.mkdir()
    elsewhere.mkdir()
    (outputs / "erm-digits-0").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=r"a symbolic link leads .* out of .*; remove the link, or name that place"):
        prepare_folder(outputs / "erm-digits-0" / "seed0", resume=True, output_dir=outputs)
    assert list(elsewhere.iterdir()) == []
    (tmp_path / "scratch").symlink_to(elsewhere)  # the output folder itself may be a link, as on clusters
    prepare_folder(tmp_path / "scratch" / "run" / "seed0", resume=True, output_dir=tmp_path / "scratch")
    assert (elsewhere / "run" / "seed0").is_dir()


def as_it_is(name: str) -> str:
    return name


@pytest.mark.fault("F17", control=True)
def test_path_control_names_taken_as_they_are_lead_out_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_names, "path_safe", as_it_is)
    cfg = OmegaConf.create({"seed": 0, "method": {"name": "../../x"}, "dataset": {"name": "d"}})
    folder = tmp_path / "deep" / "out" / run_names.run_name(cfg)
    assert not folder.resolve().is_relative_to(tmp_path / "deep" / "out")
