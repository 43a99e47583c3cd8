"""Decode encoded images to uint8: one at a time for streaming, all at once for resident data.

All image modes become RGB (or grey, for one channel): L is repeated, P is looked up, CMYK is converted, an alpha
channel is dropped, 16-bit grey keeps its upper byte. The EXIF orientation is ignored, as in the data sets' usual
loaders.
"""

from __future__ import annotations

import io
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustlab.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from robustlab.data.storage.staging import Stage

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
NAMED = 10  # maximum number of bad images, files or rows named in an error
_BLOCK = 512
# exceptions of Pillow for damaged files, depending on where the damage is
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)


def decode_image(
    where: str, source: bytes | Path | None, *, channels: int, size: int | None = None, stretch: bool = False
) -> np.ndarray:
    """Return one image, (H, W, channels) uint8.

    - where: name of the image in errors.
    - source: the encoded bytes, or the path of a file.
    - size: crop to the central square and resize (bilinear, antialiased) to size x size.
    - stretch: resize without cropping.

    Raises DataError if the image cannot be read or decoded.
    """
    if not source:
        raise DataError(f"{where}: no image bytes")
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
        if not data:
            raise DataError(f"{where}: the file is empty")
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            image = _convert(opened, "L" if channels == 1 else "RGB")
        if size is not None and image.size != (size, size):
            image = (image if stretch else _square(image)).resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, channels)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: {_reason(error)}") from error


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in `mode`, "RGB" or "L"."""
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} (32-bit pixels) has no agreed range; save it with 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _square(image: Image.Image) -> Image.Image:
    """Return the largest centred square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _reason(error: BaseException) -> str:
    """Return the message of Pillow or the system, without the address of the in-memory file."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image, or an unknown format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def image_blocks(
    items: Iterable[tuple[str, bytes | Path | None]],
    shape: tuple[int, int, int],
    *,
    size: int | None,
    what: str,
    stretch: bool = False,
    fix: str = "replace or remove them",
) -> Iterator[np.ndarray]:
    """Yield blocks of all images in order, (b, *shape) uint8.

    One core decodes about 10,000 32x32 JPEG images per second; threads only slow that down.

    - items: (name for messages, bytes or path) of each image.
    - shape: (channels, height, width).
    - size: see `decode_image`; None if all images must already have `shape`.
    - what: name of the data set, for messages.
    - fix: advice about damaged images.

    Every image is tried before raising an error: DataError lists images that do not decode, ConfigError images of other
    shapes although no `size` is set.
    """
    bad: list[str] = []
    odd: list[str] = []
    block: list[np.ndarray] = []
    channels, height, width = shape
    for where, source in items:
        try:
            image = decode_image(where, source, channels=channels, size=size, stretch=stretch)
        except DataError as error:
            bad.append(str(error))
            continue
        if image.shape[:2] != (height, width):
            odd.append(f"{where}: {image.shape[1]}x{image.shape[0]}")
        if bad or odd:  # an error is certain, so only look for more problems
            continue
        block.append(image)
        if len(block) == _BLOCK:
            yield np.stack(block).transpose(0, 3, 1, 2)
            block = []
    if bad:
        raise DataError(listing(bad, f"{what}: {len(bad)} damaged image(s); {fix}"))
    if odd:
        advice = "set dataset.source.size to resize them, or dataset.storage=streaming"
        raise ConfigError(
            listing(odd, f"{what}: {len(odd)} image(s) are not {width}x{height} like the first; {advice}")
        )
    if block:
        yield np.stack(block).transpose(0, 3, 1, 2)


def listing(entries: list[str], headline: str) -> str:
    """Return `headline`, the first entries below it, and the number of remaining ones."""
    more = [f"... and {len(entries) - NAMED} more"] if len(entries) > NAMED else []
    return "\n  ".join([headline + ":", *entries[:NAMED], *more])


class EncodedImages(ABC):
    """Encoded images that are decoded on demand (a `LazyImages`)."""

    def __init__(self, channels: int) -> None:
        """Decode to `channels`: 3 (RGB) or 1 (grey)."""
        self.channels = channels

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def encoded(self, index: int) -> tuple[str, bytes | Path | None]:
        """Return an image's name for messages, and its bytes or path."""

    @abstractmethod
    def staged(self, stage: Stage) -> EncodedImages:
        """Return the same images, read from copies on this node. Raises UnavailableError, DataError."""

    def decode(self, index: int) -> Tensor:
        """Return image `index` in its own size: uint8 [C, h, w]. Raises DataError naming the file or the row."""
        where, source = self.encoded(index)
        image = decode_image(where, source, channels=self.channels)
        return torch.tensor(image).permute(2, 0, 1).contiguous()


def check_source(*, channels: int, size: int | None, storage: str, **moments: tuple[float, ...]) -> None:
    """Raise ConfigError for impossible settings of a source; each of `moments` needs one number per channel."""
    if channels not in (1, 3):
        raise ConfigError(f"dataset.source.channels must be 1 (grey) or 3 (RGB), not {channels}")
    if size is not None and size < 1:
        raise ConfigError(f"dataset.source.size must be at least 1, not {size}")
    if storage not in ("resident", "streaming"):
        raise ConfigError(f"dataset.storage must be resident or streaming, not {storage!r}")
    for name, values in moments.items():
        if len(values) != channels:
            raise ConfigError(f"dataset.source.{name} has {len(values)} number(s) for {channels} channel(s)")
