"""Define the resolvers of the YAML files.

- `${run_name:}`: the name of a run's folder, a function of its settings.
- `${home:path}`: a path below the home folder.
- `${command:verb}`: for help texts, how this user starts `train`, `report`, ...
"""

from __future__ import annotations

import os

from omegaconf import OmegaConf

from robustlab.config.overlays import for_method, overlay_of
from robustlab.config.run_names import run_name
from robustlab.core.invocation import hint


def register() -> None:
    """Register the resolvers with OmegaConf; may be called repeatedly."""
    OmegaConf.register_new_resolver("run_name", lambda *, _root_: run_name(_root_), replace=True)
    OmegaConf.register_new_resolver("command", hint, replace=True)
    OmegaConf.register_new_resolver("home", lambda path: os.path.join(os.path.expanduser("~"), path), replace=True)
    OmegaConf.register_new_resolver("overlay_of", overlay_of, replace=True)
    OmegaConf.register_new_resolver("for_method", for_method, replace=True)
