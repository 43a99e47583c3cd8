"""TensorBoard, when `tracker.tensorboard.enabled=true`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustlab.core.errors import ConfigError
from robustlab.core.invocation import extra_hint


class TensorBoard:
    """Writes scalars and pictures to `tensorboard/` in the run folder; opened by the first row."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "tracker.tensorboard.enabled=true needs the package tensorboard, which is not installed; run: "
                + extra_hint("tensorboard")
            ) from error
        self._make = SummaryWriter
        self._folder = folder
        self._purge_step: int | None = None
        self._writer: Any = None

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any] | None, *, run_dir: Path) -> TensorBoard | None:
        """Build it from the node `tracker.tensorboard`; None if that is off."""
        return cls(run_dir / "tensorboard") if cfg and cfg.get("enabled") else None

    def resume_after(self, step: int) -> None:
        """Make TensorBoard forget what was logged after `step` by the run that goes on from there."""
        self._purge_step = step + 1

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Log scalars."""
        writer = self._open()
        for name, value in values.items():
            writer.add_scalar(name, float(value), global_step=step)

    def image(self, name: str, path: Path, *, step: int) -> None:
        """Log the picture in a file."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._open().add_image(name, pixels, global_step=step, dataformats="HWC")

    def flush(self) -> None:
        """Put what was logged into the file."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Any:
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=self._purge_step)
        return self._writer
