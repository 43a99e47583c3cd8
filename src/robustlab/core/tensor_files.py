"""Files of tensors and plain types: written whole or not at all, checked when read."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from robustlab.core.errors import RunFolderError
from robustlab.core.files import patiently, write_whole


def write_atomically(path: Path, state: Mapping[str, Any]) -> None:
    """Save tensors and plain types atomically. Raises RunFolderError."""

    def write(file: IO[bytes]) -> None:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # torch's error for a failed write; its context holds the reason
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise

    write_whole(path, write, size=tensor_bytes(state))


def tensor_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested plain types: the size of their file, give or take a few kB."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, list | tuple) else 0


class DamagedError(RunFolderError):
    """A file of tensors that is damaged, or holds anything but tensors and plain types."""


def read_tensors(path: Path) -> Any:
    """Load tensors and plain types onto the CPU.

    torch.load does not notice flipped bytes, so the CRC-32 that torch.save wrote for every record is verified first.

    Raises DamagedError if the file is damaged or holds anything else, RunFolderError if it may not be read.
    """
    try:
        return patiently(lambda: _read(path))
    except PermissionError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}); fix its permissions") from error
    except pickle.UnpicklingError as error:
        # torch's own message suggests loading without restrictions, which must not reach the user
        name = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"{name[1]} was refused: only tensors and plain types are loaded" if name else "not tensors or numbers"
        raise DamagedError(f"checkpoint {path} cannot be read ({reason})") from error
    except Exception as error:  # damage can make the zip and pickle parsers raise anything
        said = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise DamagedError(f"checkpoint {path} cannot be read ({said})") from error


def _read(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise ValueError(f"record {broken} fails its checksum")
    return torch.load(path, map_location="cpu", weights_only=True)
