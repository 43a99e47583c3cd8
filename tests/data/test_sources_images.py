"""Decoding: every mode becomes RGB or grey, every kind of damage becomes one DataError that names the image."""

import io

import numpy as np
import pytest
from PIL import Image

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.storage.encoded_images import decode_image, image_blocks


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(mode: str, value: object) -> Image.Image:
    return Image.new(mode, (5, 4), value)  # pyright: ignore[reportArgumentType]


def palette() -> Image.Image:
    image = colour("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return image


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("data", "pixel"),
    [
        (encode(colour("RGB", (10, 20, 30))), [10, 20, 30]),
        (encode(colour("L", 77)), [77, 77, 77]),
        (encode(colour("1", 1)), [255, 255, 255]),
        (encode(colour("LA", (77, 0))), [77, 77, 77]),
        (encode(colour("RGBA", (10, 20, 30, 0))), [10, 20, 30]),  # alpha is dropped, not blended
        (encode(palette()), [10, 20, 30]),
        (encode(palette(), transparency=b"\xff\x00"), [10, 20, 30]),
        (encode(colour("CMYK", (0, 255, 255, 0)), "TIFF"), [255, 0, 0]),
        (encode(Image.fromarray(np.full((4, 5), 0x4D21, dtype=np.uint16))), [0x4D] * 3),
    ],
    ids=["RGB", "L", "1", "LA", "RGBA", "P", "P transparent", "CMYK", "16 bit"],
)
def test_every_mode_becomes_rgb(data, pixel):
    image = decode_image("x", data, channels=3)
    assert image.shape == (4, 5, 3)
    assert image.dtype == np.uint8
    assert (image == np.array(pixel, dtype=np.uint8)).all()


def test_one_channel_is_grey_and_size_cuts_a_centred_square():
    assert (decode_image("x", encode(colour("RGB", (90, 90, 90))), channels=1) == 90).all()
    wide = np.zeros((4, 8), dtype=np.uint8)
    wide[:, 2:6] = 200  # the central square
    resized = decode_image("x", encode(Image.fromarray(wide)), channels=1, size=2)
    assert resized.shape == (2, 2, 1)
    assert (resized == 200).all()


NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
JPEG = encode(Image.fromarray(NOISE), "JPEG", quality=95)
PNG = encode(Image.fromarray(NOISE))


@pytest.mark.parametrize(
    "data",
    [None, b"", b"this is text, not a picture", JPEG[: len(JPEG) // 2], JPEG[:10], PNG[: len(PNG) // 2],
     PNG[:60] + b"\0" * 40 + PNG[100:], encode(colour("F", 0.5), "TIFF")],
    ids=["none", "empty", "text", "half a JPEG", "head of a JPEG", "half a PNG", "altered PNG", "float TIFF"],
)  # fmt: skip
def test_damage_is_one_error_with_the_name(data):
    with pytest.raises(DataError, match=r"^cat/7\.jpg: "):
        decode_image("cat/7.jpg", data, channels=3)


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        decode_image("empty.jpg", tmp_path / "empty.jpg", channels=3)
    with pytest.raises(DataError, match=r"gone\.jpg: No such file"):
        decode_image("gone.jpg", tmp_path / "gone.jpg", channels=3)


@pytest.mark.fault("F12")
def test_all_damaged_images_are_counted_and_the_first_ten_named():
    good = encode(colour("RGB", 0))
    items = [(f"row {row}", b"bad" if row % 50 == 3 else good) for row in range(1200)]
    with pytest.raises(DataError) as caught:
        list(image_blocks(items, (3, 4, 5), size=None, what="birds"))
    message = str(caught.value)
    assert "birds: 24 damaged" in message
    assert "row 3:" in message
    assert "row 453:" in message
    assert "row 503:" not in message
    assert "14 more" in message


def test_blocks_keep_the_order_and_odd_sizes_are_listed():
    items = [(str(row), encode(colour("L", row % 251))) for row in range(700)]
    images = np.concatenate(list(image_blocks(items, (3, 4, 5), size=None, what="x")))
    assert images.shape == (700, 3, 4, 5)
    assert (images[:, 0, 0, 0] == np.arange(700) % 251).all()
    items[5] = ("five", encode(Image.new("L", (6, 4))))
    with pytest.raises(ConfigError, match=r"1 image\(s\) are not 5x4(?s:.*)five: 6x4"):
        list(image_blocks(items, (3, 4, 5), size=None, what="x"))
    assert np.concatenate(list(image_blocks(items, (3, 4, 4), size=4, what="x"))).shape == (700, 3, 4, 4)
