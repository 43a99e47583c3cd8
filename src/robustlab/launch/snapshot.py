"""Copy the code of a sweep when it is submitted, so that later edits do not affect its jobs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import robustlab
from robustlab.config.hydra_session import conf_dir
from robustlab.config.static.module_specs import find_spec
from robustlab.engine.git import SNAPSHOT_FILE, git_state

_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def snapshot(folder: Path, *, targets: Iterable[str], config_dirs: Sequence[str]) -> list[str]:
    """Copy the package, conf/, the modules of the working folder that targets name, and folders of configuration.

    folder: where to, new. targets: the `_target_`s of all points. Returns the copies of `config_dirs`. The git commit
    goes to `code.json`, the changes since then to `changes.diff`.
    """
    source, package = folder / "src", Path(robustlab.__file__).parent
    shutil.copytree(package, source / "robustlab", ignore=_IGNORED)
    if not conf_dir().is_relative_to(package):
        shutil.copytree(conf_dir(), folder / "conf", ignore=_IGNORED)
    for origin in sorted(_local_modules(targets)):
        if origin.is_dir():
            shutil.copytree(origin, source / origin.name, ignore=_IGNORED)
        else:
            shutil.copy2(origin, source / origin.name)
    copies = [str(folder / "config" / str(number)) for number in range(len(config_dirs))]
    for original, copy in zip(config_dirs, copies, strict=True):
        shutil.copytree(original, copy, ignore=_IGNORED)
    state = git_state(package)
    (folder / SNAPSHOT_FILE).write_text(json.dumps({"from": str(package), **state}, indent=2) + "\n", encoding="utf-8")
    if state["dirty"]:
        (folder / "changes.diff").write_bytes(_changes(package))
    return copies


def _local_modules(targets: Iterable[str]) -> set[Path]:
    """Return the top-level modules and packages in the working folder that targets name."""
    here, found = Path.cwd(), set[Path]()
    for name in {target.partition(".")[0] for target in targets}:
        spec = find_spec(name)
        if spec is not None and spec.origin and Path(spec.origin).is_relative_to(here):
            origin = Path(spec.origin)
            found.add(origin.parent if origin.name == "__init__.py" else origin)
    return {path for path in found if path.parent == here}


def _changes(package: Path) -> bytes:
    command = ["git", "-C", str(package), "diff", "HEAD", "--binary", "--no-ext-diff", "--no-color"]
    return subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
