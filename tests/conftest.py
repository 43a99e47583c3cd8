"""Fixtures shared by all tests."""

import gc
import os
import pickle
import signal
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from omegaconf import OmegaConf

settings.register_profile("shared", deadline=None)  # a busy machine is no failure
settings.load_profile("shared")


def pytest_configure() -> None:
    """One thread each, set before torch is imported: the tests run two at a time (pytest-xdist)."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Suggested commands are then the same however the tests were started: `train` is on the PATH, not run by uv.
    os.environ["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    os.environ.pop("UV_RUN_RECURSION_DEPTH", None)


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of garbage collection: going through it took a tenth of all time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Take it in again: libraries that look for leaks at the end would find them."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def each_text_is_parsed_once() -> Iterator[None]:
    """Keep what OmegaConf makes of the text of a YAML file: a composition reads 30 files, half of its time."""
    load, known = OmegaConf.load, dict[tuple[str, str], bytes]()

    def remembered(file: Any) -> Any:
        if not hasattr(file, "read"):
            return load(file)
        text = file.read()
        file.seek(0)
        key = (str(file.name), text)  # errors, which are not kept, name the file
        if key not in known:
            known[key] = pickle.dumps(load(file))
        return pickle.loads(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(remembered))
        yield


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Let signals through again that a command held back until its end: the process of the tests goes on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ()) - before
    while held and signal.sigtimedwait(held, 0):
        pass
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.fixture
def real_data() -> Path:
    """The folder with real CIFAR-10 (Parquet), CIFAR-10N and MNIST; tests that need it are skipped without it."""
    folder = os.environ.get("ROBUSTLAB_TEST_DATA")
    if not folder:
        pytest.skip("set ROBUSTLAB_TEST_DATA to a folder with cifar10/, cifar10n/ and mnist/ to run this test")
    return Path(folder)
