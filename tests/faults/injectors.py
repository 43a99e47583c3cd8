"""Faults put into a process: death at the k-th I/O operation below a folder, errors of a file system, signals.

Each is a function to be run in the child before the command line (`before` of `harness.start`), made with
`functools.partial`.
"""

import builtins
import importlib
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Operations:
    """Counts the writes, fsyncs and renames below a folder, and calls `at(number, file, data)` before each.

    file, data: of a write, else None.
    """

    def __init__(self, root: Path, at: Callable[[int, Any, Any], None]) -> None:
        self.root, self.at, self.count = os.path.realpath(root), at, 0

    def install(self) -> None:
        builtins.open = io.open = self._open_with(io.open)  # pathlib asks io, everybody else builtins
        for name in ("fsync", "replace", "rename"):
            setattr(os, name, self._counted(getattr(os, name)))

    def step(self, file: Any = None, data: Any = None) -> None:
        self.count += 1
        self.at(self.count, file, data)

    def _counted(self, call: Callable) -> Callable:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return call(*args, **kwargs)

        return counted

    def _open_with(self, real: Callable) -> Callable:
        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            stream = real(file, mode, *args, **kwargs)
            below = not isinstance(file, int) and os.path.realpath(os.fspath(file)).startswith(self.root)
            return _Watched(stream, self) if below and set(mode) & set("wax+") else stream

        return opened


class _Watched:
    """A file whose writes are operations."""

    def __init__(self, stream: Any, operations: Operations) -> None:
        self._stream, self._operations = stream, operations

    def write(self, data: Any) -> int:
        self._operations.step(self._stream, data)
        return self._stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Any:
        self._stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._stream.__exit__(*error)


def die_at(k: int) -> Callable[[int, Any, Any], None]:
    """Return the action that kills the process at the k-th operation, half of it done if it is a write."""

    def at(number: int, file: Any, data: Any) -> None:
        if number == k:
            if file is not None:
                file.write(data[: len(data) // 2])
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def kill_at_operation(root: Path, k: int) -> None:
    """Kill this process at the k-th operation below `root`."""
    Operations(root, die_at(k)).install()


def count_operations(root: Path, path: Path) -> None:
    """Keep in `path` how many operations there were below `root`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    Operations(root, lambda number, file, data: os.pwrite(descriptor, b"%10d" % number, 0) and None).install()


def in_order(*parts: Callable[[], None]) -> None:
    """Inject several faults."""
    for part in parts:
        part()


def _owner(target: str) -> tuple[Any, str]:
    """Return the object and the name of its attribute that "package.module:Class.attribute" stands for."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def on_call(target: str, number: int, act: Callable[[], None]) -> None:
    """Call `act` right before the `number`-th call of `target`, e.g. "robustlab.engine.loop:evaluate_splits"."""
    owner, name = _owner(target)
    real, calls = getattr(owner, name), [0]

    def called(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            act()
        return real(*args, **kwargs)

    setattr(owner, name, called)


def replace(target: str, value: Any) -> None:
    """Put a bad implementation in place of `target`."""
    owner, name = _owner(target)
    setattr(owner, name, value)


def kill() -> None:
    """Die without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
