"""Find the images of a data set that do not decode, once, and remember them in the cache folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from robustlab.core.errors import DataError
from robustlab.data.storage.cache import exclusive, publish
from robustlab.data.storage.encoded_images import EncodedImages, decode_image, listing


def damaged_files(root: Path, files: Sequence[str], *, channels: int, record: Path | None) -> dict[str, str]:
    """Return file, relative to `root` -> reason, for files that do not decode.

    - record: file that stores the result, whose name must depend on the files; without it, every image is decoded.
    """
    if record is None:
        return _decode_all(root, files, channels)
    if not record.exists():
        with exclusive(record):
            if not record.exists():
                found = json.dumps(_decode_all(root, files, channels)).encode()
                with publish(record) as file:
                    file.write(found)
    return json.loads(record.read_text(encoding="utf-8"))


def _decode_all(root: Path, files: Sequence[str], channels: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        try:
            decode_image(file, root / file, channels=channels)
        except DataError as error:
            found[file] = str(error).removeprefix(f"{file}: ")
    return found


def check_images(images: EncodedImages, *, what: str) -> None:
    """Decode every image and raise DataError that lists all damaged ones; `what` names the data set."""
    bad: list[str] = []
    for index in range(len(images)):
        try:
            images.decode(index)
        except DataError as error:
            bad.append(str(error))
    if bad:
        raise DataError(listing(bad, f"{what}: {len(bad)} damaged image(s); replace or remove them"))
