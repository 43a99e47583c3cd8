"""The batched operations equal torchvision's, sample by sample, each with its own magnitude."""

import math

import pytest
import torch
import torchvision.transforms.v2.functional as oracle
from torch import Tensor
from torchvision.transforms import InterpolationMode

from robustlab.data.transforms import colour_ops as ops
from robustlab.data.transforms import geometry

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 24, 40)]


def pictures(shape: tuple[int, int, int], count: int = 24) -> Tensor:
    """Random images, some of them plain, dark or of few levels."""
    generator = torch.Generator().manual_seed(sum(shape))
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    images[0] = 7
    images[1, 0] = 9
    images[2] = images[2] // 4 + 30
    images[3] = images[3] // 128 * 255
    return images


def spread(low: float, high: float, count: int = 24) -> Tensor:
    """Magnitudes over a range, in no order."""
    return torch.linspace(low, high, count)[torch.randperm(count, generator=torch.Generator().manual_seed(1))]


COLOR = {
    "brightness": (spread(0, 1.9), lambda x, m: oracle.adjust_brightness(x, m), 0),
    "color": (spread(0, 1.9), lambda x, m: oracle.adjust_saturation(x, m), 1),
    "contrast": (spread(0, 1.9), lambda x, m: oracle.adjust_contrast(x, m), 1),
    "sharpness": (spread(0, 1.9), lambda x, m: oracle.adjust_sharpness(x, m), 1),
    "posterize": (spread(0, 8).round(), lambda x, m: oracle.posterize(x, int(m)), 0),
    "solarize": (spread(0, 255), lambda x, m: oracle.solarize(x, m), 0),
    "invert": (spread(0, 1), lambda x, m: oracle.invert(x), 0),
    "autocontrast": (spread(0, 1), lambda x, m: oracle.autocontrast(x), 1),
    "equalize": (spread(0, 1), lambda x, m: oracle.equalize(x), 0),
    "hue": (spread(-0.5, 0.5), lambda x, m: oracle.adjust_hue(x, m), 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", COLOR)
def test_color_operation_equals_torchvision(name: str, shape: tuple[int, int, int]) -> None:
    images, (magnitude, expected, tolerance) = pictures(shape), COLOR[name]
    result = getattr(ops, name)(images, magnitude)
    wanted = torch.stack([expected(image, float(m)) for image, m in zip(images, magnitude, strict=True)])
    assert result.dtype == torch.uint8
    assert int((result.int() - wanted.int()).abs().max()) <= tolerance


def _shear(image: Tensor, x: float, y: float, mode: InterpolationMode) -> Tensor:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return oracle.affine(image, 0.0, [0, 0], 1.0, degrees, interpolation=mode, fill=[128.0], center=[0, 0])


def _shift(image: Tensor, x: float, y: float, mode: InterpolationMode) -> Tensor:
    return oracle.affine(image, 0.0, [x, y], 1.0, [0.0, 0.0], interpolation=mode, fill=[128.0])


AFFINE = {
    "rotation": (spread(-135, 135), lambda x, m, mode: oracle.rotate(x, m, interpolation=mode, fill=[128.0])),
    "slope_x": (spread(-0.99, 0.99), lambda x, m, mode: _shear(x, m, 0.0, mode)),
    "slope_y": (spread(-0.99, 0.99), lambda x, m, mode: _shear(x, 0.0, m, mode)),
    "shift_x": (spread(-20.3, 20.3), lambda x, m, mode: _shift(x, m, 0.0, mode)),
    "shift_y": (spread(-20.3, 20.3), lambda x, m, mode: _shift(x, 0.0, m, mode)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AFFINE)
def test_nearest_affine_operation_equals_torchvision(name: str, shape: tuple[int, int, int]) -> None:
    images, (magnitude, expected) = pictures(shape), AFFINE[name]
    result = geometry.affine(images, getattr(geometry, name)(magnitude, *shape[1:]), fill=128)
    pairs = zip(images, magnitude, strict=True)
    assert torch.equal(result, torch.stack([expected(x, float(m), InterpolationMode.NEAREST) for x, m in pairs]))


@pytest.mark.parametrize("name", AFFINE)
def test_bilinear_affine_operation_equals_torchvision_away_from_the_rim(name: str) -> None:
    images, (magnitude, expected) = pictures((3, 32, 32)), AFFINE[name]
    matrix = getattr(geometry, name)(magnitude, 32, 32)
    result = geometry.affine(images, matrix, fill=128, interpolation="bilinear")
    pairs = list(zip(images, magnitude, strict=True))
    wanted = torch.stack([expected(x, float(m), InterpolationMode.BILINEAR) for x, m in pairs])
    inside = geometry.affine(torch.full_like(images, 255), matrix, fill=0, interpolation="bilinear") % 255 == 0
    assert inside.float().mean() > 0.9
    assert int((result.int() - wanted.int()).abs()[inside].max()) <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_shifts_equal_torchvision(shape: tuple[int, int, int]) -> None:
    images, pixels = pictures(shape), spread(-45, 45)  # also shifts past the image
    pairs = list(zip(images, pixels, strict=True))
    right = [_shift(x, int(m), 0, InterpolationMode.NEAREST) for x, m in pairs]
    down = [_shift(x, 0, int(m), InterpolationMode.NEAREST) for x, m in pairs]
    assert torch.equal(geometry.translate_x(images, pixels, fill=128), torch.stack(right))
    assert torch.equal(geometry.translate_y(images, pixels, fill=128), torch.stack(down))


def test_solarize_at_256_changes_nothing_and_small_images_are_not_sharpened() -> None:
    images = pictures((3, 32, 32))
    assert torch.equal(ops.solarize(images, torch.full((24,), 256.0)), images)
    tiny = images[:, :, :2, :2]
    assert torch.equal(ops.sharpness(tiny, torch.full((24,), 0.3)), tiny)


def test_operations_leave_their_input_alone() -> None:
    images = pictures((3, 32, 32))
    kept = images.clone()
    for name, (magnitude, _, _) in COLOR.items():
        getattr(ops, name)(images, magnitude)
        assert torch.equal(images, kept), name


def test_both_ways_to_count_darker_pixels_agree() -> None:
    pixels = pictures((3, 32, 32)).reshape(72, 1024)
    counted = ops.darker_by_counting(pixels)
    assert torch.equal(ops.darker_by_sorting(pixels), counted)
    assert torch.equal(counted[5], (pixels[5, :, None] < torch.arange(256)).sum(0).int())
