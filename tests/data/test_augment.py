"""Batched augmentation: exact values, independence of samples from each other, normalisation, MixUp."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.transforms.augment import Flip, PadCrop, mixup, normalize
from robustlab.data.transforms.jitter import ColorJitter, Erase
from robustlab.data.transforms.policies import AutoAugment, RandAugment, TrivialAugment
from robustlab.data.transforms.resample import CenterCrop, RandomAffine, RandomResizedCrop, Resize
from robustlab.data.transforms.transform import Pipeline, Transform, single_thread

TRANSFORMS: list[Transform] = [
    PadCrop(4),
    PadCrop(4, "reflect"),
    PadCrop(0, size=24),
    Flip(),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    Erase(),
    AutoAugment(),
    AutoAugment("imagenet", interpolation="bilinear", integer_translate=False, signed_rotate=False),
    RandAugment(),
    TrivialAugment(),
    RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5),
    RandomResizedCrop(20),
    Resize(20),
    CenterCrop(20),
    Pipeline([PadCrop(4), Flip(), AutoAugment(), Erase()]),
]


def pictures(count: int = 64, channels: int = 3, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(count + channels)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def uniforms(transform: Transform, count: int = 64, key: int = 5) -> Tensor:
    return rng.uniform(key, torch.arange(count), transform.draws)


def test_a_mirrored_border_is_that_of_torch():
    images = pictures(4, size=9)
    whole = PadCrop(3, "reflect", size=15)(images, torch.zeros(4, 2))
    wanted = torch.nn.functional.pad(images.float(), (3, 3, 3, 3), mode="reflect").byte()
    assert torch.equal(whole, wanted)
    with pytest.raises(ConfigError, match="mirror"):
        PadCrop(9, "reflect")(images, torch.zeros(4, 2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_a_sample_does_not_depend_on_its_batch(transform: Transform, channels: int) -> None:
    images, u = pictures(channels=channels), uniforms(transform)
    kept, result = images.clone(), transform(images, u)
    assert result.dtype == torch.uint8
    assert result.shape[:2] == images.shape[:2]
    assert torch.equal(images, kept)
    some = torch.tensor([40, 3, 17, 3])
    assert torch.equal(transform(images[some], u[some]), result[some])
    assert torch.equal(transform(images[9:10], u[9:10]), result[9:10])
    assert len(transform(images[:0], u[:0])) == 0


@pytest.mark.parametrize("transform", [t for t in TRANSFORMS if t.draws], ids=lambda t: type(t).__name__)
def test_samples_draw_for_themselves(transform: Transform) -> None:
    same = pictures(1).expand(64, -1, -1, -1).contiguous()
    distinct = transform(same, uniforms(transform)).flatten(1).unique(dim=0)
    assert len(distinct) >= (2 if isinstance(transform, Flip) else 15)
    assert not torch.equal(transform(same, uniforms(transform)), transform(same, uniforms(transform, key=6)))


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([8, 28, 30, 31, 32]),
    channels=st.sampled_from([1, 3]),
    padding=st.integers(0, 5),
    fill=st.integers(0, 255),
    key=st.integers(0, 2**62),
)
def test_crop_and_flip_equal_slicing(size: int, channels: int, padding: int, fill: int, key: int) -> None:
    images, weak = pictures(12, channels, size), Pipeline([PadCrop(padding, fill=fill), Flip()])
    u = uniforms(weak, 12, key)
    padded = F.pad(images, (padding,) * 4, value=fill)
    places = (u[:, :2] * (2 * padding + 1)).long().tolist()
    for row, (top, left) in enumerate(places):
        expected = padded[row, :, top : top + size, left : left + size]
        expected = expected.flip(2) if u[row, 2] < 0.5 else expected
        assert torch.equal(weak(images, u)[row], expected)


def test_crop_reaches_every_place_and_survives_the_largest_uniform() -> None:
    images = torch.arange(81, dtype=torch.uint8).view(1, 1, 9, 9).expand(4000, 1, 9, 9).contiguous()
    crop = PadCrop(0, size=1)
    counts = torch.bincount(crop(images, uniforms(crop, 4000)).flatten().long(), minlength=81)
    assert counts.min() > 20
    assert counts.max() < 90
    almost_one = torch.full((1, 2), 1.0 - 2.0**-24)
    assert int(crop(images[:1], almost_one)) == 80


def test_flip_probability() -> None:
    images, u = pictures(2000, 1, 8), uniforms(Flip(), 2000)
    flipped = (Flip(0.25)(images, u) != images).flatten(1).any(1)
    assert torch.equal(flipped, u[:, 0] < 0.25)
    assert torch.equal(Flip(0.0)(images, u), images)
    assert torch.equal(Flip(1.0)(images, u), images.flip(3))


def test_erase_paints_rectangles_of_the_asked_area() -> None:
    images = torch.full((4000, 3, 32, 32), 200, dtype=torch.uint8)
    erase = Erase(0.5, scale=(0.02, 0.33), fill=10)
    result = erase(images, uniforms(erase, 4000))
    assert set(result.unique().tolist()) == {10, 200}
    painted = (result == 10)[:, 0]
    area = painted.float().mean((1, 2))
    assert 0.46 < (area > 0).float().mean() < 0.54
    assert 0.16 < area[area > 0].mean() < 0.19  # the middle of 0.02 .. 0.33, less what does not fit
    rows, columns = painted.any(2).sum(1), painted.any(1).sum(1)
    assert torch.equal(painted.sum((1, 2)), rows * columns)


def test_color_jitter_keeps_its_ranges_and_runs_operations_in_every_order() -> None:
    jitter = ColorJitter(brightness=0.4, hue=0.1)
    number, argument = jitter.choose(uniforms(jitter, 4000), 32, 32)
    brightness, hue = argument[number == 1], argument[number == 10]
    assert len(brightness) == len(hue) == 4000
    assert 0.6 <= brightness.min() < 0.61 < 1.39 < brightness.max() <= 1.4
    assert -0.1 <= hue.min() < -0.099 < 0.099 < hue.max() <= 0.1
    assert 900 < (number[:, 0] == 1).sum() < 1100
    images = pictures()
    assert torch.equal(ColorJitter()(images, uniforms(jitter)), images)


def test_random_affine_without_amounts_is_the_identity_and_shifts_exactly() -> None:
    images = pictures()
    still = RandomAffine()
    assert torch.equal(still(images, uniforms(still)), images)
    shift = RandomAffine(translate=(0.25, 0.0), fill=9)
    u = torch.full((64, 5), 0.5)
    u[:, 1] = 1.0  # the far end: 8 pixels to the right
    assert torch.equal(shift(images, u)[:, :, :, 8:], images[:, :, :, :-8])
    assert bool((shift(images, u)[:, :, :, :8] == 9).all())


def test_random_resized_crop_of_the_whole_image_is_the_image() -> None:
    images, crop = pictures(), RandomResizedCrop(32, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert torch.equal(crop(images, uniforms(crop)), images)


def test_random_resized_crop_falls_back_to_the_centre() -> None:
    images = pictures(4, 3, 32)[:, :, :16].contiguous()  # 16 x 32, and only a square of the whole area is asked for
    crop = RandomResizedCrop(16, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert torch.equal(crop(images, uniforms(crop, 4)), images[:, :, :, 8:24])


def test_resize_and_center_crop() -> None:
    plain = torch.full((2, 3, 40, 30), 77, dtype=torch.uint8)
    assert torch.equal(Resize(16)(plain, torch.empty(2, 0)), torch.full((2, 3, 16, 16), 77, dtype=torch.uint8))
    images = pictures()
    assert torch.equal(CenterCrop(24)(images, torch.empty(64, 0)), images[:, :, 4:28, 4:28])
    with pytest.raises(ConfigError, match="resize first"):
        CenterCrop(33)(images, torch.empty(64, 0))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3])
def test_normalize(memory_format: torch.memory_format, channels: int) -> None:
    images, mean, std = pictures(channels=channels), (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels]
    result = normalize(images, mean, std, memory_format=memory_format)
    expected = (images / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-6)
    assert result.is_contiguous(memory_format=memory_format)
    with pytest.raises(ConfigError, match="mean"):
        normalize(images, (0.5, 0.5), (1.0, 1.0))


def _mix(alpha: float, seed: int = 0, at_least_half: bool = False) -> tuple[Tensor, Tensor, float, Tensor, Tensor]:
    inputs, targets = torch.arange(40.0).view(8, 5), F.one_hot(torch.arange(8), 8).float()
    generator = torch.Generator().manual_seed(seed)
    return (*mixup(inputs, targets, alpha=alpha, generator=generator, at_least_half=at_least_half), inputs, targets)


def test_mixup_mixes_inputs_and_targets_alike() -> None:
    mixed, mixed_targets, weight, inputs, targets = _mix(4.0)
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(8))
    torch.testing.assert_close(mixed, mixed_targets @ inputs)  # row i is what its target says it is
    partner = (mixed_targets - weight * targets).argmax(1)
    torch.testing.assert_close(mixed, weight * inputs + (1 - weight) * inputs[partner])


def test_mixup_without_alpha_is_the_identity() -> None:
    mixed, mixed_targets, weight, inputs, targets = _mix(0.0)
    assert weight == 1.0
    assert torch.equal(mixed, inputs)
    assert torch.equal(mixed_targets, targets)


@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_mixup_weight_follows_beta(alpha: float) -> None:
    weights = torch.tensor([_mix(alpha, seed)[2] for seed in range(1500)], dtype=torch.float64)
    assert abs(float(weights.mean()) - 0.5) < 0.03
    assert float(weights.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)
    halves = torch.tensor([_mix(alpha, seed, at_least_half=True)[2] for seed in range(1500)], dtype=torch.float64)
    torch.testing.assert_close(halves, torch.maximum(weights, 1 - weights))


def test_mixup_draws_from_its_generator_alone() -> None:
    torch.manual_seed(1)
    first, state = _mix(4.0), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(_mix(4.0)[0], first[0])
    assert not torch.equal(_mix(4.0, seed=1)[0], first[0])


def test_mixup_keeps_channels_last() -> None:
    inputs = torch.rand(8, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    mixed, _, _ = mixup(inputs, torch.rand(8, 2), alpha=1.0, generator=generator)
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_single_thread_restores_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="inside"), single_thread():
        raise RuntimeError("inside")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("made", "arguments"),
    [
        (PadCrop, {"padding": -1}),
        (PadCrop, {"fill": 256}),
        (Flip, {"probability": 1.5}),
        (ColorJitter, {"hue": 0.6}),
        (Erase, {"scale": (0.3, 0.1)}),
        (AutoAugment, {"policy": "svnh"}),
        (AutoAugment, {"interpolation": "bicubic"}),
        (RandAugment, {"magnitude": 31}),
        (TrivialAugment, {"num_magnitude_bins": 1}),
        (RandomAffine, {"degrees": -1}),
        (RandomResizedCrop, {"size": 0}),
    ],
)
def test_wrong_arguments_are_named(made: type, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=made.__name__):
        made(**arguments)


def test_wrong_uniforms_and_too_large_windows_are_named() -> None:
    images = pictures()
    with pytest.raises(ConfigError, match="shape \\(64, 2\\)"):
        Pipeline([PadCrop(4)])(images, torch.zeros(64, 3))
    with pytest.raises(ConfigError, match="larger"):
        PadCrop(0, size=33)(images, torch.zeros(64, 2))
    with pytest.raises(ConfigError, match="alpha"):
        mixup(images.float(), images.float(), alpha=-1.0, generator=torch.Generator())
