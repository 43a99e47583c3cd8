"""Draw two overlapping views of each image with known geometry, and resample maps of both onto their overlap."""

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
    """A view of each image in a batch.

    - images: (B, C, S, S) float32, normalised.
    - box: x1, y1, x2, y2 of the crop, (B, 4) float32, as fractions of the source's width and height.
    - flipped: whether it is flipped horizontally, (B,) bool.
    """

    images: Tensor
    box: Tensor
    flipped: Tensor


class TwoViews:
    """Draws two views of each image, as a pure, row-wise function of images and uniform random numbers."""

    def __init__(self, settings: ViewSettings, *, task: TaskSpec, memory_format: torch.memory_format) -> None:
        self.settings, self.task, self.memory_format = settings, task, memory_format
        self.draws = 2 * (4 * settings.attempts + 1 + _APPEARANCE_DRAWS)

    def __call__(self, images: Tensor, u: Tensor) -> tuple[View, View]:
        """Return both views.

        - images: (B, C, H, W) uint8.
        - u: uniform random numbers, (B, draws) float32 on the same device, for crops, flips and appearance in this
          order, whether used or not, so that turning off jitter does not change the crops.
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
    """Return values as (C, 1, 1) float32 on the device; cached, because the transfer would synchronise."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def to_pixels(images: Tensor, task: TaskSpec) -> Tensor:
    """Undo normalisation: return (B, C, H, W) uint8 for (B, C, H, W) float."""
    mean, std = (_column(tuple(values), images.device) for values in (task.mean, task.std))
    return ops.to_bytes(((images.float() * std + mean) * 255).round_()).contiguous()


def intersect(first: Tensor, second: Tensor) -> Tensor:
    """Return the overlap of boxes, (..., 4) float; x2 < x1 or y2 < y1 if there is none."""
    return torch.cat(
        [torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])], dim=-1
    )


def area(box: Tensor) -> Tensor:
    """Return the areas, (...), of boxes, (..., 4); 0 for empty ones."""
    return (box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1)


def draw_boxes(u: Tensor, height: int, width: int, *, settings: ViewSettings) -> tuple[Tensor, Tensor]:
    """Return two boxes, (B, 4) float32 each, that overlap by at least `min_overlap` of the smaller one.

    The first box is the first candidate that fits into the image, or else the largest centred box of an allowed ratio
    (as in torchvision). The second is the first candidate that fits and overlaps, or else the first box again.

    - u: uniform random numbers, (B, 8 * attempts).
    """
    for_first, for_second = u.view(len(u), 2, settings.attempts, 4).unbind(1)
    candidates, fits = _candidates(for_first, height, width, settings)
    first = _first_of(candidates, fits, _centred(u, height, width, settings))
    candidates, fits = _candidates(for_second, height, width, settings)
    smaller = torch.minimum(area(first)[:, None], area(candidates))
    fits &= area(intersect(first[:, None], candidates)) >= settings.min_overlap * smaller
    return first, _first_of(candidates, fits, first)


def _candidates(u: Tensor, height: int, width: int, settings: ViewSettings) -> tuple[Tensor, Tensor]:
    """Return candidate boxes, (B, attempts, 4) float32, and which of them fit.

    - u: uniform random numbers for area, ratio, column and row, (B, attempts, 4).
    """
    low, high = settings.scale
    part = low + (high - low) * u[..., 0]
    narrow, broad = (math.log(bound) for bound in settings.ratio)
    ratio = torch.exp(narrow + (broad - narrow) * u[..., 1])
    sides = torch.stack([part * ratio * (height / width), part / ratio * (width / height)], dim=-1).sqrt()
    fits = (sides <= 1).all(dim=-1)
    start = u[..., 2:] * (1 - sides).clamp(min=0)
    return torch.cat([start, (start + sides).clamp(max=1)], dim=-1), fits


def _centred(u: Tensor, height: int, width: int, settings: ViewSettings) -> Tensor:
    """Return the largest centred box of an allowed ratio, (B, 4) float32."""
    narrow, broad = settings.ratio
    wide, tall = min(1.0, height * broad / width), min(1.0, width / narrow / height)
    box = ((1 - wide) / 2, (1 - tall) / 2, (1 + wide) / 2, (1 + tall) / 2)
    return torch.stack([u.new_full((len(u),), side) for side in box], dim=1)


def _first_of(candidates: Tensor, fits: Tensor, otherwise: Tensor) -> Tensor:
    """Return the first of the candidates, (B, A, 4), that fits, else the row of `otherwise`, (B, 4)."""
    place = fits.to(torch.uint8).argmax(dim=1)
    chosen = candidates.gather(1, place[:, None, None].expand(-1, 1, 4))[:, 0]
    return torch.where(fits.any(dim=1, keepdim=True), chosen, otherwise)


def cut_out(
    images: Tensor, box: Tensor, flipped: Tensor, shape: tuple[int, int], *, interpolation: str = "bilinear"
) -> Tensor:
    """Cut out and possibly flip a box of each image, resampled without antialiasing: (B, C, *shape) uint8."""
    x, y = (_centres(box[:, axis], box[:, axis + 2], size) for axis, size in ((0, shape[1]), (1, shape[0])))
    x = torch.where(flipped[:, None], x.flip(1), x)
    full = (len(images), *shape)
    grid = torch.stack([x[:, None, :].expand(full), y[:, :, None].expand(full)], dim=3) * 2 - 1
    values = F.grid_sample(images.float(), grid, mode=interpolation, padding_mode="border", align_corners=False)
    return ops.to_bytes(values.round_())


def _centres(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Return the centres of `size` cells between low, (B,), and high, (B,), as (B, size)."""
    steps = (torch.arange(size, device=low.device) + 0.5) / size
    return low[:, None] + (high - low)[:, None] * steps


def change_appearance(images: Tensor, u: Tensor, *, settings: ViewSettings, view: int) -> Tensor:
    """Apply jitter, greyscale, blur and solarisation; return (B, C, H, W) uint8.

    - u: uniform random numbers, (B, 9).
    - view: 0 or 1.
    """
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
    """Apply colour jitter; return (B, C, H, W) uint8.

    - u: uniform random numbers for whether, brightness, contrast, saturation and hue, (B, 5).
    """
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
    """Blur with a Gaussian of `sigma` pixels, (B,) float, replicating edges; return (B, C, H, W) uint8."""
    count, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = (-0.5 * (offsets / sigma[:, None]) ** 2).softmax(dim=1).repeat_interleave(channels, dim=0)
    planes = images.float().view(1, count * channels, height, width)
    planes = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=count * channels)
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=count * channels)
    return ops.to_bytes(planes.view(images.shape).round_())


def align(maps: Tensor, view: View, overlap: Tensor) -> Tensor:
    """Resample maps of a view at the centres of a grid over `overlap`, undoing flips; return (B, N, h, w) float32.

    Bilinear interpolation with replicated borders, equal to `grid_sample`, but computed as two matrix products: boxes
    are axis-aligned, and the gradient of matrix products is deterministic on a GPU.

    - maps: (B, N, h, w) float32.
    - overlap: box in the source's coordinates, (B, 4) float32.
    """
    height, width = maps.shape[2:]
    x = _centres(overlap[:, 0], overlap[:, 2], width)
    y = _centres(overlap[:, 1], overlap[:, 3], height)
    x = (x - view.box[:, 0:1]) / (view.box[:, 2:3] - view.box[:, 0:1])
    y = (y - view.box[:, 1:2]) / (view.box[:, 3:4] - view.box[:, 1:2])
    x = torch.where(view.flipped[:, None], 1 - x, x)
    return _weights(y, height)[:, None] @ maps @ _weights(x, width)[:, None].transpose(2, 3)


def _weights(place: Tensor, size: int) -> Tensor:
    """Return linear interpolation weights of cells (last axis), (B, size, size), at positions in [0, 1], (B, size)."""
    pixel = (place * size - 0.5).clamp(0, size - 1)
    return (1 - (pixel[:, :, None] - torch.arange(size, device=place.device)).abs()).clamp(min=0)
