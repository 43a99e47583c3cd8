"""Turn failures of the environment, such as full memory or disks, into errors that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

import torch
from omegaconf import DictConfig

from robustlab.core.errors import ResourceError, RunFolderError
from robustlab.core.files import FULL, free_bytes, readable_size


@contextlib.contextmanager
def explained(cfg: DictConfig, folder: Path) -> Iterator[None]:
    """Turn out-of-memory errors into ResourceError and disk-full errors into RunFolderError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(cfg, error) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch has no error class for this on the CPU
            raise
        raise _out_of_memory(cfg, error) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = error.filename or folder
        raise RunFolderError(
            f"{where} cannot be written ({error.strerror}; {readable_size(free_bytes(folder))} free in {folder}). Free "
            "up disk space or quota and run the same command again"
        ) from error


def _out_of_memory(cfg: DictConfig, error: BaseException) -> ResourceError:
    trainer = cfg.trainer
    where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
    said = shorten((str(error) or type(error).__name__).splitlines()[0], 160, placeholder=" ...").rstrip(".")
    return ResourceError(
        f"out of {where} with trainer.batch_size={trainer.batch_size}, trainer.eval_batch_size="
        f"{trainer.eval_batch_size} ({said}). Lower them (trainer.batch_size={max(1, trainer.batch_size // 2)} with "
        f"trainer.accumulate={2 * trainer.accumulate} keeps the effective batch size), set dataset.storage=streaming "
        "if the data does not fit, or request more memory; existing checkpoints are intact"
    )
