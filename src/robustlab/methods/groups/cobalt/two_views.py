"""Two overlapping views of each image with known geometry, and maps of both brought onto their overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.data.dataset import TaskSpec
from robustlab.data.transforms import colour_ops as ops
from robustlab.data.transforms.augment import normalize
from robustlab.methods.groups.cobalt.discovery_settings import ViewSettings

_APPEARANCE_DRAWS = 9


@dataclass(frozen=True)
class View:
    """A view of each image of a batch.

    images: normalised, float32 [B, C, S, S]. box: x1, y1, x2, y2 of the crop, float32 [B, 4], in parts of the source's
    width and height. flipped: whether it is mirrored left and right, bool [B].
    """

    images: Tensor
    box: Tensor
    flipped: Tensor


class TwoViews:
    """Draws two views of each image; a pure function of images and uniforms, row by row."""

    def __init__(self, settings: ViewSettings, *, task: TaskSpec, memory_format: torch.memory_format) -> None:
        self.settings, self.task, self.memory_format = settings, task, memory_format
        self.draws = 2 * (4 * settings.attempts + 1 + _APPEARANCE_DRAWS)

    def __call__(self, images: Tensor, u: Tensor) -> tuple[View, View]:
        """Return both views. images: uint8 [B, C, H, W]. u: uniforms float32 [B, draws] on the same device.

        The order of `u` is that of crops, flips, appearances, whether in use or not: switching jitter off leaves the
        crops what they were.
        """
        height, width = images.shape[2:]
        crops = 8 * self.settings.attempts
        boxes = draw_boxes(u[:, :crops], height, width, settings=self.settings)
        flips = u[:, crops : crops + 2] < self.settings.flip
        first, second = (
            self._view(images, box, flips[:, view], appearance, view)
            for view, (box, appearance) in enumerate(zip(boxes, u[:, crops + 2 :].chunk(2, dim=1), strict=True))
        )
        return first, second

    def _view(self, images: Tensor, box: Tensor, flipped: Tensor, u: Tensor, view: int) -> View:
        size = self.settings.size
        shape = (images.shape[2], images.shape[3]) if size is None else (size, size)
        pixels = cut_out(images, box, flipped, shape, interpolation=self.settings.interpolation)
        pixels = change_appearance(pixels, u, settings=self.settings, view=view)
        rendered = normalize(pixels, self.task.mean, self.task.std, memory_format=self.memory_format)
        return View(rendered, box, flipped)


@lru_cache(maxsize=64)
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return float32 [C, 1, 1] on the device; kept, because moving it there waits for it."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def to_pixels(images: Tensor, task: TaskSpec) -> Tensor:
    """Return the bytes that normalised images were made from: uint8 [B, C, H, W] of float [B, C, H, W]."""
    mean, std = (_column(tuple(values), images.device) for values in (task.mean, task.std))
    return ops.to_bytes(((images.float() * std + mean) * 255).round_()).contiguous()


def intersect(first: Tensor, second: Tensor) -> Tensor:
    """Return the overlap of boxes float [..., 4]; x2 < x1 or y2 < y1 where there is none."""
    return torch.cat(
        [torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])], dim=-1
    )


def area(box: Tensor) -> Tensor:
    """Return the areas [...] of boxes [..., 4], 0 for an empty one."""
    return (box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1)


def draw_boxes(u: Tensor, height: int, width: int, *, settings: ViewSettings) -> tuple[Tensor, Tensor]:
    """Return two boxes float32 [B, 4] that overlap by `min_overlap` of the smaller one.

    u: [B, 8 * attempts]. First: the first candidate that fits into the image, else the largest centred box of an
    allowed ratio (as torchvision does). Second: the first candidate that fits and overlaps, else the first box again.
    """
    for_first, for_second = u.view(len(u), 2, settings.attempts, 4).unbind(1)
    candidates, fits = _candidates(for_first, height, width, settings)
    first = _first_of(candidates, fits, _centred(u, height, width, settings))
    candidates, fits = _candidates(for_second, height, width, settings)
    smaller = torch.minimum(area(first)[:, None], area(candidates))
    fits &= area(intersect(first[:, None], candidates)) >= settings.min_overlap * smaller
    return first, _first_of(candidates, fits, first)


def _candidates(u: Tensor, height: int, width: int, settings: ViewSettings) -> tuple[Tensor, Tensor]:
    """Return boxes float32 [B, attempts, 4] and which of them fit. u: area, ratio, column, row, [B, attempts, 4]."""
    low, high = settings.scale
    part = low + (high - low) * u[..., 0]
    narrow, broad = (math.log(bound) for bound in settings.ratio)
    ratio = torch.exp(narrow + (broad - narrow) * u[..., 1])
    sides = torch.stack([part * ratio * (height / width), part / ratio * (width / height)], dim=-1).sqrt()
    fits = (sides <= 1).all(dim=-1)
    start = u[..., 2:] * (1 - sides).clamp(min=0)
    return torch.cat([start, (start + sides).clamp(max=1)], dim=-1), fits


def _centred(u: Tensor, height: int, width: int, settings: ViewSettings) -> Tensor:
    """Return the largest centred box of an allowed ratio, float32 [B, 4]."""
    narrow, broad = settings.ratio
    wide, tall = min(1.0, height * broad / width), min(1.0, width / narrow / height)
    box = ((1 - wide) / 2, (1 - tall) / 2, (1 + wide) / 2, (1 + tall) / 2)
    return torch.stack([u.new_full((len(u),), side) for side in box], dim=1)


def _first_of(candidates: Tensor, fits: Tensor, otherwise: Tensor) -> Tensor:
    """Return the first candidate [B, A, 4] that fits, else the row of `otherwise` [B, 4]."""
    place = fits.to(torch.uint8).argmax(dim=1)
    chosen = candidates.gather(1, place[:, None, None].expand(-1, 1, 4))[:, 0]
    return torch.where(fits.any(dim=1, keepdim=True), chosen, otherwise)


def cut_out(
    images: Tensor, box: Tensor, flipped: Tensor, shape: tuple[int, int], *, interpolation: str = "bilinear"
) -> Tensor:
    """Return each box of uint8 [B, C, H, W], maybe mirrored, resampled without antialiasing: uint8 [B, C, *shape]."""
    x, y = (_centres(box[:, axis], box[:, axis + 2], size) for axis, size in ((0, shape[1]), (1, shape[0])))
    x = torch.where(flipped[:, None], x.flip(1), x)
    full = (len(images), *shape)
    grid = torch.stack([x[:, None, :].expand(full), y[:, :, None].expand(full)], dim=3) * 2 - 1
    values = F.grid_sample(images.float(), grid, mode=interpolation, padding_mode="border", align_corners=False)
    return ops.to_bytes(values.round_())


def _centres(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Return the centres of `size` cells between low [B] and high [B]: [B, size]."""
    steps = (torch.arange(size, device=low.device) + 0.5) / size
    return low[:, None] + (high - low)[:, None] * steps


def change_appearance(images: Tensor, u: Tensor, *, settings: ViewSettings, view: int) -> Tensor:
    """Return uint8 [B, C, H, W] with jitter, grey, blur and solarisation. u: [B, 9]; view: 0 or 1."""
    if any(settings.jitter) and settings.jitter_probability > 0:
        images = _jitter(images, u[:, :5], settings=settings)
    if settings.grey > 0:
        images = ops.color(images, (u[:, 5] >= settings.grey).float())
    if settings.blur[view] > 0:
        low, high = settings.blur_sigma
        blurred = _blur(images, low + (high - low) * u[:, 7], radius=math.ceil(3 * high))
        images = torch.where((u[:, 6] < settings.blur[view]).view(-1, 1, 1, 1), blurred, images)
    if settings.solarise[view] > 0:
        chosen = u[:, 8] < settings.solarise[view]
        images = ops.solarize(images, torch.where(chosen, float(settings.solarise_threshold), 256.0))
    return images


def _jitter(images: Tensor, u: Tensor, *, settings: ViewSettings) -> Tensor:
    """Return uint8 [B, C, H, W]. u: whether, brightness, contrast, saturation, hue, [B, 5]."""
    chosen = u[:, 0] < settings.jitter_probability
    for column, operation in enumerate((ops.brightness, ops.contrast, ops.color)):
        strength = settings.jitter[column]
        if strength:
            low = max(0.0, 1 - strength)
            factor = low + (1 + strength - low) * u[:, column + 1]
            images = operation(images, torch.where(chosen, factor, 1.0))
    if settings.jitter[3]:
        images = ops.hue(images, torch.where(chosen, (2 * u[:, 4] - 1) * settings.jitter[3], 0.0))
    return images


def _blur(images: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """Return uint8 [B, C, H, W] under a Gaussian of `sigma` pixels, float [B]; edges are repeated outwards."""
    count, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = (-0.5 * (offsets / sigma[:, None]) ** 2).softmax(dim=1).repeat_interleave(channels, dim=0)
    planes = images.float().view(1, count * channels, height, width)
    planes = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=count * channels)
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=count * channels)
    return ops.to_bytes(planes.view(images.shape).round_())


def align(maps: Tensor, view: View, overlap: Tensor) -> Tensor:
    """Return maps of a view resampled at the centres of a grid over `overlap`, not mirrored.

    maps: float32 [B, N, h, w]. overlap: box in the source's coordinates, float32 [B, 4]. Returns float32 [B, N, h, w].
    Bilinear interpolation with repeated borders, what `grid_sample` computes; as two matrix products, because
    boxes are parallel to the axes, and because their gradient is the same on every run on a GPU.
    """
    height, width = maps.shape[2:]
    x = _centres(overlap[:, 0], overlap[:, 2], width)
    y = _centres(overlap[:, 1], overlap[:, 3], height)
    x = (x - view.box[:, 0:1]) / (view.box[:, 2:3] - view.box[:, 0:1])
    y = (y - view.box[:, 1:2]) / (view.box[:, 3:4] - view.box[:, 1:2])
    x = torch.where(view.flipped[:, None], 1 - x, x)
    return _weights(y, height)[:, None] @ maps @ _weights(x, width)[:, None].transpose(2, 3)


def _weights(place: Tensor, size: int) -> Tensor:
    """Return the weights [B, size, size] of cells (last axis) in linear interpolation at places [B, size] in 0 .. 1."""
    pixel = (place * size - 0.5).clamp(0, size - 1)
    return (1 - (pixel[:, :, None] - torch.arange(size, device=place.device)).abs()).clamp(min=0)
