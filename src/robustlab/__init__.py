"""robustlab: a Hydra-configured framework for research on training dynamics."""

__version__ = "0.1.0"
