"""Views: crops that overlap, known geometry, appearance, and maps brought onto the overlap."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import TaskSpec
from robustlab.data.transforms.augment import normalize
from robustlab.methods.groups.cobalt import two_views as views
from robustlab.methods.groups.cobalt.discovery_settings import ViewSettings

TASK = TaskSpec(2, (3, 24, 24), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PLAIN = {"flip": 0.0, "jitter": (0, 0, 0, 0), "grey": 0.0}
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def boxes(count=1000, height=32, width=32, seed=0, **options):
    chosen = ViewSettings(**options)
    u = rng.uniform(seed, torch.arange(count), 8 * chosen.attempts)
    return views.draw_boxes(u, height, width, settings=chosen)


def overlaps(first, second):
    return views.area(views.intersect(first, second)) / torch.minimum(views.area(first), views.area(second))


def view_of(box, flipped=False):
    return views.View(torch.empty(len(box), 1, 1, 1), box, torch.full((len(box),), flipped))


def some_images(count=8, side=24, seed=0):
    return torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def two_views(images, key=0, channels_last=False, **options):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    make = views.TwoViews(ViewSettings(**options), task=TASK, memory_format=memory_format)
    return make(images, rng.uniform(key, torch.arange(len(images)), make.draws))


@settings(max_examples=30)
@given(
    st.floats(0.05, 1), st.floats(0, 1), st.floats(0.5, 1), st.floats(0.02, 1), st.integers(1, 12),
    st.integers(8, 64), st.integers(8, 64), st.integers(0, 99),
)  # fmt: skip
def test_crops_lie_in_the_image_and_overlap(low, more, ratio, overlap, attempts, height, width, seed):
    scale = (low, min(1.0, low + more * (1 - low)))
    first, second = boxes(
        1000, height, width, seed, scale=scale, ratio=(ratio, 1 / ratio), min_overlap=overlap, attempts=attempts
    )
    for box in (first, second):
        assert bool(((box >= 0) & (box <= 1)).all())
        assert bool((box[:, :2] < box[:, 2:]).all())
    assert float(overlaps(first, second).min()) >= overlap - 1e-5


def test_crops_have_the_areas_and_ratios_asked_for():
    first, second = boxes(4000, 40, 20, scale=(0.2, 0.6), ratio=(0.75, 4 / 3))
    for box in (first, second):
        areas = views.area(box)
        assert 0.2 - 1e-5 <= float(areas.min()) <= 0.22
        assert 0.5 <= float(areas.max()) <= 0.6 + 1e-5
        ratios = (box[:, 2] - box[:, 0]) * 20 / ((box[:, 3] - box[:, 1]) * 40)
        assert 0.75 - 1e-4 <= float(ratios.min()) <= 0.8
        assert 1.25 <= float(ratios.max()) <= 4 / 3 + 1e-4


def test_a_second_crop_that_never_overlaps_enough_is_the_first_again():
    first, second = boxes(500, scale=(0.2, 0.2), min_overlap=1.0, attempts=3)
    assert torch.equal(first, second)


def test_where_no_rectangle_fits_the_largest_centred_one_is_taken():
    first, second = boxes(3, 10, 40, scale=(1.0, 1.0), attempts=2)
    wide = 10 * (4 / 3) / 40
    torch.testing.assert_close(first, torch.tensor([[(1 - wide) / 2, 0.0, (1 + wide) / 2, 1.0]]).expand(3, 4))
    assert torch.equal(first, second)


@pytest.mark.parametrize("flipped", [False, True])
def test_maps_on_identical_whole_boxes_come_back_mirrored_if_flipped(flipped):
    maps = torch.randn(1, 4, 5, 7)
    found = views.align(maps, view_of(WHOLE, flipped), WHOLE)
    torch.testing.assert_close(found, maps.flip(3) if flipped else maps, atol=1e-5, rtol=0)


@settings(max_examples=30)
@given(st.integers(0, 999), st.booleans())
def test_alignment_is_what_grid_sample_computes(seed, flipped):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, 2, 4, generator=generator) * 0.45
    first, second = torch.cat([corners[..., :2], 1 - corners[..., 2:]], dim=-1)
    maps, overlap = torch.randn(2, 3, 4, 6, generator=generator), views.intersect(first, second)
    x = overlap[:, 0:1] + (overlap[:, 2:3] - overlap[:, 0:1]) * (torch.arange(6) + 0.5) / 6
    y = overlap[:, 1:2] + (overlap[:, 3:4] - overlap[:, 1:2]) * (torch.arange(4) + 0.5) / 4
    x = (x - first[:, 0:1]) / (first[:, 2:3] - first[:, 0:1])
    y = (y - first[:, 1:2]) / (first[:, 3:4] - first[:, 1:2])
    x = 1 - x if flipped else x
    grid = 2 * torch.stack([x[:, None].expand(2, 4, 6), y[:, :, None].expand(2, 4, 6)], dim=3) - 1
    expected = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(views.align(maps, view_of(first, flipped), overlap), expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=30)
@given(st.integers(0, 999), st.booleans(), st.booleans())
def test_maps_of_one_ramp_agree_on_the_overlap(seed, first_flipped, second_flipped):
    first, second = boxes(16, seed=seed, scale=(0.5, 1.0), min_overlap=0.5)
    overlap = views.intersect(first, second)
    side = 16
    aligned = []
    for box, flipped in ((first, first_flipped), (second, second_flipped)):
        centres = (torch.arange(side) + 0.5) / side
        x = box[:, 0:1] + (box[:, 2:3] - box[:, 0:1]) * (centres.flip(0) if flipped else centres)
        y = box[:, 1:2] + (box[:, 3:4] - box[:, 1:2]) * centres
        ramp = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=1)
        aligned.append(views.align(ramp, view_of(box, flipped), overlap)[:, :, 1:-1, 1:-1])
    torch.testing.assert_close(*aligned, atol=1e-5, rtol=0)
    # ... and they are the ramp at the cells of the overlap
    expected = overlap[:, 0:1] + (overlap[:, 2:3] - overlap[:, 0:1]) * (torch.arange(side) + 0.5)[1:-1] / side
    torch.testing.assert_close(aligned[0][:, 0, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_cutting_out_the_whole_image_returns_it(interpolation):
    images = some_images(2)
    never, always = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    whole = WHOLE.expand(2, 4)
    assert torch.equal(views.cut_out(images, whole, never, (24, 24), interpolation=interpolation), images)
    assert torch.equal(views.cut_out(images, whole, always, (24, 24), interpolation=interpolation), images.flip(3))


def test_boxes_on_pixel_borders_are_cut_exactly():
    images = some_images(1)
    box = torch.tensor([[0.25, 0.5, 0.75, 1.0]])
    found = views.cut_out(images, box, torch.tensor([False]), (12, 12))
    assert torch.equal(found, images[:, :, 12:24, 6:18])


def test_views_without_appearance_are_normalised_crops():
    images = some_images()
    first, second = two_views(images, **PLAIN)
    for view in (first, second):
        expected = views.cut_out(images, view.box, view.flipped, (24, 24))
        assert torch.equal(view.images, normalize(expected, TASK.mean, TASK.std))
        assert not view.flipped.any()
    assert not torch.equal(first.box, second.box)


def test_a_view_depends_on_its_own_image_and_draws_alone():
    images = some_images(6)
    options = {"blur": (1.0, 0.5), "solarise": (0.0, 0.5), "size": 20}
    together = two_views(images, **options)
    make = views.TwoViews(ViewSettings(**options), task=TASK, memory_format=torch.contiguous_format)
    u = rng.uniform(0, torch.arange(6), make.draws)
    for row in range(6):
        alone = make(images[row : row + 1], u[row : row + 1])
        for one, all_rows in zip(alone, together, strict=True):
            assert torch.equal(one.images[0], all_rows.images[row])
            assert torch.equal(one.box[0], all_rows.box[row])


def test_appearance_leaves_the_crops_what_they_were():
    plain, changed = two_views(some_images(), **{**PLAIN, "flip": 0.5}), two_views(some_images(), flip=0.5)
    for one, other in zip(plain, changed, strict=True):
        assert torch.equal(one.box, other.box)
        assert torch.equal(one.flipped, other.flipped)
    assert bool(plain[0].flipped.any())
    assert not bool(plain[0].flipped.all())


def shares(changed, plain):
    return (changed != plain).flatten(1).any(dim=1).float().mean().item()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"jitter": (0.4, 0, 0, 0), "jitter_probability": 0.5}, (0.5, 0.5)),
        ({"jitter": (0, 0, 0, 0.2), "jitter_probability": 1.0}, (1.0, 1.0)),
        ({"grey": 0.25}, (0.25, 0.25)),
        ({"blur": (1.0, 0.1), "blur_sigma": (1.0, 2.0)}, (1.0, 0.1)),
        ({"solarise": (0.0, 0.2)}, (0.0, 0.2)),
    ],
)
def test_how_often_the_appearance_changes(options, expected):
    images = some_images(600, side=6)
    plain, changed = two_views(images, **PLAIN), two_views(images, **{**PLAIN, **options})
    for one, other, share in zip(changed, plain, expected, strict=True):
        assert shares(one.images, other.images) == pytest.approx(share, abs=0.07)


def test_grey_views_are_grey_and_blurred_ones_smooth():
    images = some_images(4)
    grey = views.to_pixels(two_views(images, **{**PLAIN, "grey": 1.0})[0].images, TASK)
    assert torch.equal(grey[:, 0], grey[:, 2])
    plain, blurred = (
        views.to_pixels(two_views(images, **{**PLAIN, "blur": blur})[0].images, TASK).float()
        for blur in ((0.0, 0.0), (1.0, 1.0))
    )
    assert blurred.std() < 0.8 * plain.std()
    torch.testing.assert_close(blurred.mean(), plain.mean(), atol=2.0, rtol=0)


def test_bytes_come_back_from_normalised_images():
    images = some_images()
    assert torch.equal(views.to_pixels(normalize(images, TASK.mean, TASK.std), TASK), images)


def test_images_of_one_channel_and_the_memory_format():
    task = TaskSpec(2, (1, 24, 24), (0.5,), (0.25,))
    make = views.TwoViews(ViewSettings(), task=task, memory_format=torch.channels_last)
    first, _ = make(some_images()[:, :1], rng.uniform(0, torch.arange(8), make.draws))
    assert first.images.shape == (8, 1, 24, 24)
    assert two_views(some_images(), channels_last=True)[0].images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": (0.0, 1.0)}, {"scale": (0.5, 1.2)}, {"ratio": (2, 1)}, {"min_overlap": 0.0}, {"attempts": 0},
        {"flip": 1.5}, {"size": 0}, {"jitter": (0.4, 0.4)}, {"jitter": (0.4, 0.4, 0.2, 0.6)}, {"blur": (0.5, 2.0)},
        {"blur_sigma": (0.0, 1.0)}, {"interpolation": "nearest"}, {"solarise_threshold": 300},
    ],
)  # fmt: skip
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=f"views.*{next(iter(options))}|views needs {next(iter(options))}"):
        ViewSettings(**options)
