"""Find a module without importing the packages above it."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from functools import cache


@cache
def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return a module's spec like `importlib.util.find_spec`, but without importing its parents."""
    path, spec = None, None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        spec = _ask_finders(".".join(parts[:end]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and end < len(parts):
            return None
    return spec


def _ask_finders(name: str, path) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path, None) if hasattr(finder, "find_spec") else None
        except KeyError:  # a package without `__init__.py` asks for its parent, which is not imported
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            folders = (os.path.join(entry, name.rpartition(".")[2]) for entry in path)
            spec.submodule_search_locations = [folder for folder in folders if os.path.isdir(folder)]
        if spec is not None:
            return spec
    return None
